//! `Error` as a tonic status and back. The texts travel as JSON in the status details.

use crate::{Error, Reaction, SqlState};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

#[derive(Serialize, Deserialize)]
struct Details {
    code: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
    position: Option<u32>,
    reaction: u8,
}

const REACTIONS: [Reaction; 5] =
    [Reaction::Report, Reaction::Retry, Reaction::Abort, Reaction::Resolve, Reaction::GiveUp];

pub(super) fn to_status(error: Error) -> Status {
    let reaction = REACTIONS.iter().position(|r| *r == error.reaction).unwrap_or_default() as u8;
    let details = Details {
        code: error.code.as_str().to_owned(),
        message: error.message.clone(),
        detail: error.detail,
        hint: error.hint,
        context: error.context,
        position: error.position,
        reaction,
    };
    let json = serde_json::to_vec(&details).expect("strings and numbers always encode");
    Status::with_details(Code::Unknown, error.message, json.into())
}

/// `on_break` says what a call without an answer means.
pub(super) fn from_status(status: Status, on_break: Reaction) -> Error {
    if let Ok(details) = serde_json::from_slice::<Details>(status.details()) {
        return Error {
            code: SqlState::parse(&details.code),
            message: details.message,
            detail: details.detail,
            hint: details.hint,
            context: details.context,
            position: details.position,
            reaction: REACTIONS.get(details.reaction as usize).copied().unwrap_or(Reaction::Report),
        };
    }
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Error::internal(status.message()),
        Code::Unimplemented => Error::new(SqlState::DATA_NODE_INVALID_CONFIG, "the node does not know this call"),
        _ => Error::new(SqlState::CONNECTION_FAILURE, "connection to data node was lost")
            .detail(status.message().to_owned())
            .reaction(on_break),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_every_part_on_the_wire() {
        let error = Error::new(SqlState::DISK_FULL, "no space")
            .detail("d")
            .hint("h")
            .context("c")
            .position(7)
            .reaction(Reaction::GiveUp);
        assert_eq!(from_status(to_status(error.clone()), Reaction::Retry), error);
    }

    #[test]
    fn a_broken_connection_says_what_the_caller_must_do() {
        let error = from_status(Status::unavailable("reset"), Reaction::Resolve);
        assert_eq!((error.code, error.reaction), (SqlState::CONNECTION_FAILURE, Reaction::Resolve));
    }
}
