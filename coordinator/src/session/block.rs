//! The transaction block as a client sees it: whether one is open or failed, its savepoints, what `SET` is to go back to,
//! and the statements that move between these states. No I/O: the session acts on what this says.

use super::variables::Variables;
use crate::txn;
use proto::{Error, Result, SqlState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of one block. A driver may set one before each statement and never release any.
const SAVEPOINTS_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No transaction.
    #[default]
    Idle,
    /// One that the end of the query string or Sync commits.
    Implicit,
    /// Between BEGIN and COMMIT.
    Open,
    /// A statement failed in an open block: only its end is accepted, or the way back to a savepoint.
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
    savepoints: Vec<Savepoint>,
    /// Counts savepoints and the ways back to them. What the client opens (a cursor) belongs to the era in which it does.
    era: u64,
}

/// A name for a place in the transaction.
struct Savepoint {
    name: String,
    place: txn::Savepoint,
    /// The first era behind it, and the first one since it was last gone back to.
    eras: (u64, u64),
    kept: Arc<Kept>,
}

/// Settings as they were. Savepoints between which none was set share them.
#[derive(PartialEq)]
struct Kept {
    variables: Variables,
    local: BTreeMap<String, Option<String>>,
    read_only: bool,
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

    /// # Errors
    /// 25P01 outside of a block.
    pub fn check_open(&self, what: &str) -> Result<()> {
        match self.state {
            State::Open | State::Failed => Ok(()),
            State::Idle | State::Implicit => {
                let text = format!("{what} can only be used in transaction blocks");
                Err(Error::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, text))
            }
        }
    }

    /// # Errors
    /// 54000 when there are as many savepoints as may be.
    pub fn check_room(&self) -> Result<()> {
        match self.savepoints.len() < SAVEPOINTS_MAX {
            true => Ok(()),
            false => {
                let text = format!("a transaction cannot have more than {SAVEPOINTS_MAX} savepoints");
                Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, text).hint("Release those no longer needed."))
            }
        }
    }

    pub fn has_savepoints(&self) -> bool {
        !self.savepoints.is_empty()
    }

    pub fn era(&self) -> u64 {
        self.era
    }

    /// Whether what was opened in the era is still open.
    pub fn is_alive(&self, era: u64) -> bool {
        let gone = |savepoint: &Savepoint| (savepoint.eras.0..savepoint.eras.1).contains(&era);
        match self.state {
            State::Idle => false,
            State::Failed => self.savepoints.last().is_some_and(|last| era < last.eras.0),
            State::Implicit | State::Open => !self.savepoints.iter().any(gone),
        }
    }

    /// SAVEPOINT. One of the same name is hidden by it.
    pub fn open_savepoint(&mut self, name: String, place: txn::Savepoint, variables: &Variables) {
        let kept = Kept { variables: variables.clone(), local: self.local.clone(), read_only: self.read_only };
        let same = self.savepoints.last().filter(|last| *last.kept == kept).map(|last| Arc::clone(&last.kept));
        let kept = same.unwrap_or_else(|| Arc::new(kept));
        self.era += 1;
        self.savepoints.push(Savepoint { name, place, eras: (self.era, self.era), kept });
    }

    /// The youngest of that name, as the others take it.
    ///
    /// # Errors
    /// 3B001 when there is none.
    pub fn find_savepoint(&self, name: &str) -> Result<usize> {
        let found = self.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        found.ok_or_else(|| Error::new(SqlState::new("3B001"), format!("savepoint \"{name}\" does not exist")))
    }

    pub fn place_of(&self, savepoint: usize) -> txn::Savepoint {
        self.savepoints[savepoint].place
    }

    /// ROLLBACK TO: the savepoint stays, those behind it go, and a failed block is mended.
    pub fn go_back(&mut self, savepoint: usize, variables: &mut Variables) {
        self.savepoints.truncate(savepoint + 1);
        self.era += 1;
        let target = &mut self.savepoints[savepoint];
        target.eras.1 = self.era;
        variables.clone_from(&target.kept.variables);
        self.local.clone_from(&target.kept.local);
        self.read_only = target.kept.read_only;
        self.state = State::Open;
    }

    /// RELEASE: it goes, and those behind it.
    pub fn release(&mut self, savepoint: usize) {
        self.savepoints.truncate(savepoint);
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
    fn a_savepoint_keeps_settings_and_mends_the_block() {
        let mut variables = Variables::default();
        let mut block = Block::default();
        assert_eq!(block.check_open("SAVEPOINT").unwrap_err().code.as_str(), "25P01");
        block.begin(&variables, 0);
        let open = |block: &mut Block, name: &str, variables: &Variables| {
            block.open_savepoint(name.to_owned(), txn::Savepoint::START, variables);
            block.era()
        };
        let outer = open(&mut block, "a", &variables);
        variables.set("work_mem", "8MB").unwrap();
        let inner = open(&mut block, "a", &variables);
        variables.set("work_mem", "16MB").unwrap();
        block.fail();
        assert!(block.is_alive(outer) && !block.is_alive(inner), "what was opened behind the last one goes");
        assert_eq!(block.find_savepoint("b").unwrap_err().message, "savepoint \"b\" does not exist");
        let at = block.find_savepoint("a").unwrap();
        block.go_back(at, &mut variables);
        assert_eq!((at, block.state, variables.show("work_mem").unwrap()), (1, State::Open, "8MB".to_owned()));
        assert!(block.is_alive(outer) && !block.is_alive(inner) && block.is_alive(block.era()));
        block.release(1);
        block.go_back(0, &mut variables);
        assert_eq!(variables.show("work_mem").unwrap(), "4MB");
        assert!(block.is_alive(0) && !block.is_alive(outer) && block.is_alive(block.era()));
        block.end(Ending::Commit, &mut variables);
        assert!(!block.has_savepoints() && !block.is_alive(0));
    }

    #[test]
    fn savepoints_between_which_nothing_was_set_share_what_they_keep() {
        let (variables, mut block) = (Variables::default(), Block::default());
        block.begin(&variables, 0);
        for _ in 0..SAVEPOINTS_MAX {
            block.check_room().unwrap();
            block.open_savepoint("s".to_owned(), txn::Savepoint::START, &variables);
        }
        assert_eq!(Arc::strong_count(&block.savepoints[0].kept), SAVEPOINTS_MAX);
        assert_eq!(block.check_room().unwrap_err().code, SqlState::PROGRAM_LIMIT_EXCEEDED);
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
