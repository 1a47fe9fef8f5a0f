//! A client connection: tokio-postgres with its notices kept, and results as the text a user would see.

use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, SimpleQueryMessage};

pub struct Session {
    pub client: Client,
    notices: Arc<Mutex<Vec<DbError>>>,
    driver: JoinHandle<()>,
}

/// # Errors
/// When the server cannot be reached or refuses the login.
pub async fn connect(config: &Config) -> Result<Session, Error> {
    let (client, mut connection) = config.connect(NoTls).await?;
    let notices = Arc::new(Mutex::new(Vec::new()));
    let kept = notices.clone();
    let driver = tokio::spawn(async move {
        // An error ends the connection; the call that was under way reports it.
        while let Some(Ok(message)) = futures::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message {
                kept.lock().unwrap().push(notice);
            }
        }
    });
    Ok(Session { client, notices, driver })
}

impl Session {
    /// Runs statements by the simple protocol; the row count of the last.
    pub async fn run(&self, sql: &str) -> u64 {
        let messages = self.client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{}", describe(&e)));
        messages
            .iter()
            .rev()
            .find_map(|m| if let SimpleQueryMessage::CommandComplete(n) = m { Some(*n) } else { None })
            .unwrap_or(0)
    }

    /// All rows of all statements; `None` is NULL.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_rows(sql).await.unwrap_or_else(|e| panic!("{sql}\n{}", describe(&e)))
    }

    pub async fn try_rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let messages = self.client.simple_query(sql).await?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// One row as psql would align it: values parted by `|`, NULL as nothing.
    pub async fn lines(&self, sql: &str) -> Vec<String> {
        let rows = self.rows(sql).await;
        rows.into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("|"))
            .collect()
    }

    /// The only value of the only row.
    pub async fn value(&self, sql: &str) -> String {
        let lines = self.lines(sql).await;
        assert_eq!(lines.len(), 1, "{sql}");
        lines.into_iter().next().expect("one line")
    }

    /// The error the statement must end with.
    pub async fn error(&self, sql: &str) -> DbError {
        match self.client.simple_query(sql).await {
            Ok(_) => panic!("{sql}\nsucceeded"),
            Err(e) => error_of(&e),
        }
    }

    /// The notices since the last call.
    pub fn take_notices(&self) -> Vec<DbError> {
        std::mem::take(&mut *self.notices.lock().unwrap())
    }

    /// Cuts the connection without a word, as a client that vanishes does.
    pub async fn vanish(self) {
        self.driver.abort();
        let _ = self.driver.await;
    }
}

/// What the server said; panics when the error is not the server's.
pub fn error_of(error: &Error) -> DbError {
    error.as_db_error().unwrap_or_else(|| panic!("not an answer of the server: {}", describe(error))).clone()
}

fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(e) => format!("{}: {}", e.code().code(), e.message()),
        None => format!("{error:?}"),
    }
}
