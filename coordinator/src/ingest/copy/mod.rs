//! COPY's text, CSV and binary forms, in and out. No sockets and no tables: bytes to columns and columns to bytes.
//!
//! In: `LineSplitter` (`lines`) cuts the client's bytes, however they arrive, into blocks of whole records; `BlockParser`
//! (`parse`) turns a block into columns, taking each field (`fields`) straight to its column's builder, without a row
//! in between. `CopyParser` (`parser`) is the two in a row. Blocks depend on nothing before them, so several threads parse a
//! stream that one of them splits: `ParallelParser` (`parallel`), what sessions use.
//! Out: `CopyWriter` (`writer`). `binary` has both ways of the binary form, on one thread: there is little to parse.
//!
//! Invariants
//! - After an error a parser is good for nothing but dropping: no part of a COPY is kept.
//! - Memory is bounded by a block per core, its columns, one push, and a record (`RECORD_BYTES_MAX`) that is not whole yet.
//! - Delimiter, quote and escape are ASCII and no line ends: UTF-8 text may be cut at any of them.

mod binary;
mod fields;
mod lines;
mod options;
mod parallel;
mod parse;
mod parser;
mod writer;

pub use binary::{BinaryParser, BinaryWriter};
pub use lines::{Block, LineSplitter, RECORD_BYTES_MAX};
pub use options::{CopyDirection, CopyForm, CopyFormat, CopyOptions, HeaderLine};
pub use parallel::ParallelParser;
pub use parse::BlockParser;
pub use parser::CopyParser;
pub use writer::CopyWriter;

#[cfg(test)]
mod tests;
