//! The Postgres wire: protocol 3.0 and 3.2 over TCP, authentication, simple and extended queries, COPY, cancel.
//!
//! It is not SQL: it neither parses nor plans, and knows a session only as the trait [`backend::Conversation`]. It speaks
//! no TLS yet and says so (`N`) to clients that ask.
//!
//! Of pgwire it takes the backend's messages and leaves the conversation and the decoder: its loop collects a result
//! before the first row, does not stop a running stream and flushes every message (see `frontend` for the decoder).
//! What would change our mind: a pgwire whose portals stream and whose decoder keeps to its frame.
//!
//! A query, seen from here: [`serve()`] accepts, `startup` greets and authenticates → `connection` reads a message
//! through `wire` and `frontend` → `backend::Conversation` runs it → `rows` (values by `encode`) or `copy` send what comes
//! → `Conversation::sync` → ReadyForQuery. `attention` ends any of it when the client cancels or leaves.
//!
//! Invariants
//! - Results are never collected: the stream is polled when the client has taken what was written.
//! - No message is buffered before its kind and length are known to be acceptable; 32 KiB before authentication.
//! - An unknown role and a wrong password cost the same messages and give the same answer.

mod attention;
pub mod backend;
mod cancel;
mod connection;
mod copy;
mod encode;
mod extended;
mod failure;
mod frontend;
mod report;
mod rows;
pub mod scram;
mod serve;
mod startup;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

pub use cancel::Cancels;
pub use serve::{ServeOptions, serve};
