//! One client's conversation: its identity, settings, transaction block, prepared statements and cursors.
//!
//! `front` lets clients in · `parse` text to statements · `variables` SET and SHOW · `block` the transaction block ·
//! `savepoint` places to take it back to ·
//! `dispatch` a statement to whoever runs it: `query` (SELECT), `explain`, `write/` (INSERT, UPDATE, DELETE), `copy`,
//! `cursor`, `utility`, and the definitions in `define/` (tables, roles, databases, grants).
//!
//! It is not where SQL is understood (`engine`), rows are routed (`ingest`) or transactions decided (`txn`).
//!
//! Invariants
//! - Every statement runs inside a transaction, the block's or an implicit one that `sync` ends.
//! - A password never gets past `define::role`, which turns it into a verifier.

mod block;
mod conversation;
mod copy;
mod cursor;
mod define;
mod dispatch;
mod explain;
mod front;
mod gate;
mod parse;
mod query;
mod relations;
mod savepoint;
mod shape;
mod system;
#[cfg(test)]
mod tests;
mod utility;
mod variables;
mod write;

pub use front::{Front, FrontOptions};
pub use gate::Gate;
pub(crate) use parse::{TableOption, fold, qualified_name, statement_kinds};
pub(crate) use system::{System, bytes_of};
pub use variables::{SERVER_VERSION, Variables};

use crate::catalog::{CatalogState, Relation};
use crate::jobs::Histories;
use crate::pg::Cancels;
use crate::pg::backend::{Notice, Statements};
use crate::txn::{Cluster, Transaction};
use block::{Block, Isolation};
use cursor::Cursors;
use engine::{Settings, Shuffling, TableDef};
use proto::{CommitSeq, Error, Result, SqlState, TxnId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// The open transaction. Shared with a COPY's sink, which outlives the statement's `execute`; never held by two at once.
pub(crate) type SharedTransaction = Arc<Mutex<Transaction>>;

pub struct Session {
    front: Arc<front::Shared>,
    session_user: String,
    database: String,
    pid: i32,
    variables: Variables,
    /// What the client was last told of the reported settings.
    told: Option<Variables>,
    block: Block,
    transaction: Option<SharedTransaction>,
    statements: Statements,
    cursors: Cursors,
    /// Rows of statements that are not written yet.
    group: Option<write::gather::Group>,
    /// Whether a statement that may change something ran in the open transaction.
    wrote: AtomicBool,
    notices: Vec<Notice>,
}

impl Session {
    /// The role whose rights count: SET ROLE's, else the one that logged in.
    pub(crate) fn current_user(&self) -> &str {
        match self.variables.raw("role") {
            "none" => &self.session_user,
            role => role,
        }
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// The open transaction, begun now if there is none.
    pub(crate) fn transaction(&mut self) -> SharedTransaction {
        let cluster = &self.front.cluster;
        self.transaction.get_or_insert_with(|| Arc::new(Mutex::new(cluster.begin()))).clone()
    }

    /// Before each statement: at READ COMMITTED it sees what others have committed by now.
    ///
    /// # Errors
    /// When another transaction committed what makes this one's definitions impossible.
    pub(crate) async fn refresh(&mut self) -> Result<()> {
        match (&self.transaction, self.block.isolation) {
            (Some(transaction), Isolation::ReadCommitted) => transaction.lock().await.refresh(),
            _ => Ok(()),
        }
    }

    /// What exists, as this transaction sees it.
    pub(crate) async fn catalog(&mut self) -> Arc<CatalogState> {
        let transaction = self.transaction();
        let transaction = transaction.lock().await;
        transaction.catalog().clone()
    }

    /// What the current statement reads, and the transaction's own rows.
    ///
    /// # Errors
    /// Of rows still on their way to the nodes.
    pub(crate) async fn snapshot(&mut self) -> Result<(CommitSeq, Option<TxnId>)> {
        let transaction = self.transaction();
        let mut transaction = transaction.lock().await;
        Ok((transaction.snapshot(), transaction.read_txn().await?))
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.front.cluster
    }

    pub(crate) fn histories(&self) -> &Histories {
        &self.front.histories
    }

    pub(crate) fn cancels(&self) -> &Cancels {
        &self.front.cancels
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// `set_config`: as SET, with its checks.
    pub(crate) async fn assign(&mut self, name: &str, value: String, local: bool) -> Result<()> {
        utility::assign(self, name, value, local).await
    }

    pub(crate) fn shown(&self, name: &str) -> Result<String> {
        self.variables.show(name)
    }

    /// A new object's oid.
    pub(crate) fn new_oid(&self) -> u32 {
        self.front.cluster.new_oid()
    }

    /// # Errors
    /// `25001` between BEGIN and COMMIT.
    pub(crate) fn check_no_block(&self, what: &str) -> Result<()> {
        match self.block.state {
            block::State::Open => {
                let message = format!("{what} cannot run inside a transaction block");
                Err(Error::new(SqlState::ACTIVE_SQL_TRANSACTION, message))
            }
            _ => Ok(()),
        }
    }

    /// Whether the session's role may stop the session with this process number.
    pub(crate) fn may_stop(&self, pid: i32) -> bool {
        let catalog = self.front.cluster.catalog();
        let user = self.current_user();
        let owner = self.front.activity.lock().get(&pid).map(|other| other.user.clone());
        catalog.role(user).is_ok_and(|role| role.superuser)
            || owner.is_some_and(|owner| catalog.memberships(user).contains(&owner))
    }

    /// The table or view that a name means in this session.
    fn find<'a>(&self, catalog: &'a CatalogState, name: &(Option<String>, String)) -> Option<Relation<'a>> {
        let path = self.variables.search_path(self.current_user());
        relations::find(catalog, &self.database, &path, name.0.as_deref(), &name.1)
    }

    /// A table as a `regclass` argument names it: `t`, `schema.t`, quoted or not.
    ///
    /// # Errors
    /// `42P01`, and `42809` for a view.
    pub(crate) fn table_named(&self, catalog: &CatalogState, text: &str) -> Result<Arc<TableDef>> {
        let name = parse::qualified_name(text)?;
        match self.find(catalog, &name) {
            Some(Relation::Table(table)) => Ok(table.clone()),
            Some(Relation::View(_)) => {
                Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", name.1)))
            }
            None => Err(define::no_relation(&name)),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        let user = self.current_user().to_owned();
        Settings {
            time_zone: self.variables.raw("TimeZone").to_owned(),
            now_us: self.block.now_us,
            search_path: self.variables.search_path(&user),
            user,
            database: self.database.clone(),
            push_down: self.variables.is_on("enable_partitionwise_aggregate"),
            shuffle: match self.variables.raw(variables::SHUFFLE) {
                "on" => Shuffling::On,
                "off" => Shuffling::Off,
                _ => Shuffling::Auto,
            },
            partitions: self.front.partitions,
        }
    }

    /// # Errors
    /// `25006` in a read-only transaction.
    pub(crate) fn check_writable(&self, what: &str) -> Result<()> {
        match self.block.read_only {
            true => {
                Err(Error::new(SqlState::new("25006"), format!("cannot execute {what} in a read-only transaction")))
            }
            false => {
                self.wrote.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}
