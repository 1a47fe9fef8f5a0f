//! Why something stopped: a statement failed and the connection goes on, or the connection ends.

use proto::{Error, SqlState};

#[derive(Debug)]
pub(super) enum Failure {
    /// Told to the client; the connection goes on.
    Statement(Error),
    End(End),
}

#[derive(Debug)]
pub(super) enum End {
    /// The client left, or nothing can be told to it.
    Gone,
    /// Told to the client as FATAL.
    Fatal(Error),
}

impl End {
    pub(super) fn violation(message: impl Into<String>) -> End {
        End::Fatal(Error::new(SqlState::PROTOCOL_VIOLATION, message))
    }

    pub(super) fn shutdown() -> End {
        End::Fatal(Error::new(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Statement(error)
    }
}

impl From<End> for Failure {
    fn from(end: End) -> Failure {
        Failure::End(end)
    }
}

/// During start-up every error is the end.
impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Fatal(error)
    }
}
