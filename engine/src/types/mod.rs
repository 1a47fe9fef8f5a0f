//! Postgres types over Arrow columns: which Arrow type holds which Postgres type, and the text and binary forms of
//! values in both directions.

mod pg_type;

pub use pg_type::{PG_TYPE, PgType};
