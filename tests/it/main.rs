//! The whole of Seriatim from outside: the binary as users start it, spoken to over the Postgres wire; and the contract
//! of `DataNode`, which the node itself and its gRPC client must both keep. One test binary, so that it links once.
//!
//! It is not the place for a crate's own cases; those stand beside the code.
//!
//! Knobs (environment)
//! - `SERIATIM_SEED`: replays the random choices a failing test printed. `SERIATIM_ROUNDS=n`: `generated` makes n runs.
//! - `SERIATIM_REFERENCE`: the connection string of a PostgreSQL 15 server. The tests of plain PostgreSQL behaviour then
//!   run there instead, which is how the tests themselves are checked. `SERIATIM_RECORD=1` besides writes what that
//!   server answered into `tests/slt`.
//! - `SERIATIM_SLT`: only the scripts whose name contains it.
//! - `SERIATIM_CLIENTS=1`: also the tests that need psql, and Python with duckdb and pyarrow (`SERIATIM_PYTHON`); `.ci/run`
//!   sets it.
//!
//! With the feature `failpoints` the binary is one that dies where `killpoints` says (`SERIATIM_FAILPOINT=point:passage`).

#![allow(clippy::unwrap_used, reason = "all of this is test code, helpers included")]

mod bad_input;
mod bank;
mod cluster;
mod contract;
mod copy;
mod crash;
mod explain;
mod generated;
mod group;
mod history;
#[cfg(feature = "failpoints")]
mod killpoints;
mod lifecycle;
mod overload;
mod psql;
mod readers;
mod shuffle;
mod slt;
mod tsbs;
mod tutorial;
mod watched;
mod wire;
mod writes;
