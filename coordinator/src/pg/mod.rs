//! The Postgres wire. The only module that knows pgwire.
