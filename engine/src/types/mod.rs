//! Postgres types over Arrow columns: which Arrow type holds which Postgres type, and the text and binary forms of
//! values in both directions.
//!
//! Out: `ColumnText` and `ColumnBinary` (`text`, `binary`), over a column that `values` has brought into one of few
//! layouts. In: `ColumnBuilder` (`builder`), or `parse_scalar` for a single value. Below them, one file per family of
//! types: `plain`, `float`, `decimal`, `datetime` (with `calendar` and `zone`), `interval`, `json`, `array_text`.
//!
//! It knows no expressions and no catalog: names behind `regclass` and the like are resolved elsewhere.
//!
//! Invariants
//! - What is written is what PostgreSQL 15 writes, and reading it gives the value back.
//! - Errors carry PostgreSQL's SQLSTATE and words.

mod abbreviations;
mod array_text;
mod binary;
mod builder;
pub mod calendar;
pub mod datetime;
mod decimal;
mod digits;
mod float;
mod interval;
mod json;
mod pg_type;
mod plain;
mod scalar;
mod text;
mod values;
mod zone;

pub use array_text::split_array;
pub use binary::{ColumnBinary, write_binary};
pub use builder::ColumnBuilder;
pub use datetime::TimeContext;
pub use decimal::{DecimalLimits, parse_decimal, write_decimal};
pub use float::{parse_float4, parse_float8, write_float4, write_float8};
pub use interval::{format_interval, parse_interval, write_interval};
pub use json::{check_json, normalize_jsonb};
pub use pg_type::{PG_TYPE, PgType};
pub use plain::{parse_bool, parse_bytea, parse_uuid, utf8, uuid_text};
pub use scalar::{parse_scalar, scalar_from_binary};
pub use text::{ColumnText, Formatter};
pub use zone::TimeZone;

#[cfg(test)]
mod tests;
