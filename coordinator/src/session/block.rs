//! The transaction block as a client sees it: whether one is open or failed, what `SET` is to go back to, and the
//! statements that move between these states. No I/O: the session acts on what this says.

use super::variables::Variables;
use proto::{Error, Result, SqlState};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No transaction.
    #[default]
    Idle,
    /// One that the end of the query string or Sync commits.
    Implicit,
    /// Between BEGIN and COMMIT.
    Open,
    /// A statement failed in an open block: only its end is accepted.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// A new snapshot for each statement.
    #[default]
    ReadCommitted,
    /// One snapshot, taken by the first statement.
    RepeatableRead,
}

#[derive(Default)]
pub struct Block {
    pub state: State,
    pub isolation: Isolation,
    pub read_only: bool,
    /// The statement time of the transaction: its `now()`.
    pub now_us: i64,
    /// The settings before the transaction, for ROLLBACK.
    before: Option<Variables>,
    /// Settings under SET LOCAL and what they go back to at the end; `None` is "not set".
    local: BTreeMap<String, Option<String>>,
}

/// How a transaction is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Rollback,
}

impl Block {
    /// # Errors
    /// `IN_FAILED_SQL_TRANSACTION` in a failed block.
    pub fn check_usable(&self) -> Result<()> {
        match self.state {
            State::Failed => Err(Error::new(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
            _ => Ok(()),
        }
    }

    /// A statement is about to run; a transaction starts with it unless one is open.
    pub fn enter(&mut self, variables: &Variables, now_us: i64) {
        if self.state == State::Idle {
            self.start(State::Implicit, variables, now_us);
        }
    }

    /// BEGIN. False when a block was open already, which is only worth a warning.
    pub fn begin(&mut self, variables: &Variables, now_us: i64) -> bool {
        match self.state {
            State::Idle => self.start(State::Open, variables, now_us),
            State::Implicit => self.state = State::Open,
            State::Open | State::Failed => return false,
        }
        true
    }

    fn start(&mut self, state: State, variables: &Variables, now_us: i64) {
        let isolation = match variables.raw("default_transaction_isolation") {
            "repeatable read" => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
        let read_only = variables.is_on("default_transaction_read_only");
        *self = Block { state, isolation, read_only, now_us, before: Some(variables.clone()), ..Block::default() };
    }

    /// SET LOCAL is about to change `name`.
    pub fn remember_local(&mut self, name: &str, variables: &Variables) {
        let current = variables.show(name).ok();
        self.local.entry(name.to_ascii_lowercase()).or_insert(current);
    }

    /// A statement failed.
    pub fn fail(&mut self) {
        if self.state == State::Open {
            self.state = State::Failed;
        }
    }

    /// Ends the transaction: the settings as they are to be from now on.
    pub fn end(&mut self, ending: Ending, variables: &mut Variables) {
        let ended = std::mem::take(self);
        match (ending, ended.before) {
            (Ending::Rollback, Some(before)) => *variables = before,
            _ => {
                for (name, value) in ended.local {
                    // A value that was in force before is acceptable now.
                    let _ = match value {
                        Some(value) => variables.set(&name, &value),
                        None => variables.reset(&name),
                    };
                }
            }
        }
    }

    /// What COMMIT does now: in a failed block it rolls back.
    pub fn ending_of_commit(&self) -> Ending {
        match self.state {
            State::Failed => Ending::Rollback,
            _ => Ending::Commit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollback_takes_settings_back_and_commit_keeps_all_but_local_ones() {
        let mut variables = Variables::default();
        let mut block = Block::default();
        assert!(block.begin(&variables, 0));
        variables.set("work_mem", "8MB").unwrap();
        block.remember_local("TimeZone", &variables);
        variables.set("TimeZone", "Asia/Tokyo").unwrap();
        let mut rolled_back = variables.clone();
        Block { before: Some(Variables::default()), ..Block::default() }.end(Ending::Rollback, &mut rolled_back);
        assert_eq!(rolled_back.show("work_mem").unwrap(), "4MB");
        block.end(Ending::Commit, &mut variables);
        assert_eq!(variables.show("work_mem").unwrap(), "8MB");
        assert_eq!(variables.show("TimeZone").unwrap(), "UTC");
        assert_eq!(block.state, State::Idle);
    }

    #[test]
    fn a_failed_block_only_ends() {
        let mut block = Block::default();
        block.begin(&Variables::default(), 0);
        block.fail();
        assert_eq!(block.check_usable().unwrap_err().code.as_str(), "25P02");
        assert_eq!(block.ending_of_commit(), Ending::Rollback);
    }

    #[test]
    fn begin_makes_an_implicit_transaction_a_block() {
        let mut block = Block::default();
        block.enter(&Variables::default(), 7);
        assert!(block.begin(&Variables::default(), 8));
        assert_eq!((block.state, block.now_us), (State::Open, 7));
        assert!(!block.begin(&Variables::default(), 9));
    }
}
