//! SAVEPOINT, ROLLBACK TO, RELEASE: places by name that the open block can be taken back to.
//!
//! Rows and definitions go back in the transaction (`txn::Savepoint`), settings in the block; cursors close. What is not
//! part of a transaction stays: prepared statements, the snapshot, how far a cursor has read.

use super::Session;
use super::dispatch::done;
use super::parse::fold;
use crate::pg::backend::Outcome;
use crate::txn::Savepoint;
use datafusion::sql::sqlparser::ast::Ident;
use proto::Result;

pub(super) async fn open(session: &mut Session, name: &Ident) -> Result<Outcome> {
    session.block.check_open("SAVEPOINT")?;
    session.block.check_room()?;
    let place = match &session.transaction {
        Some(transaction) => transaction.lock().await.savepoint().await?,
        None => Savepoint::START,
    };
    session.block.open_savepoint(fold(name), place, &session.variables);
    done("SAVEPOINT")
}

/// # Errors
/// A node was lost, or lost the transaction; the block is then a failed one.
pub(super) async fn rollback_to(session: &mut Session, name: &Ident) -> Result<Outcome> {
    session.block.check_open("ROLLBACK TO SAVEPOINT")?;
    let at = session.block.find_savepoint(&fold(name))?;
    if let Some(transaction) = &session.transaction {
        transaction.lock().await.rollback_to(session.block.place_of(at)).await?;
    }
    session.block.go_back(at, &mut session.variables);
    let block = &session.block;
    session.cursors.keep(|era| block.is_alive(era));
    done("ROLLBACK")
}

pub(super) async fn release(session: &mut Session, name: &Ident) -> Result<Outcome> {
    session.block.check_open("RELEASE SAVEPOINT")?;
    let at = session.block.find_savepoint(&fold(name))?;
    // As long as the savepoint is there, what fails on its way can be taken back.
    if let Some(transaction) = &session.transaction {
        transaction.lock().await.settle().await?;
    }
    session.block.release(at);
    done("RELEASE")
}
