//! DataFusion set up to answer as PostgreSQL 15 does.
//!
//! A statement passes: [`check_depth`] (before parsing) · [`rewrite`] (syntax that DataFusion has no hook for, and
//! PostgreSQL's column names) · DataFusion's planner with our hooks: `type_names`, `operators`, `relations` · the
//! analyzer: `unions` and `untyped` before DataFusion finds common types, `casts` after · DataFusion's optimizer. Errors leave through
//! [`to_error`].
//!
//! It is not a catalog: relations are somebody else's, and so are statements that are not queries.
//!
//! Invariants
//! - No statement can reach a file or an address from here.
//! - No function holds session state; the zone and `now()` are in the configuration.

#[cfg(test)]
mod answers;
mod casts;
mod depth;
mod distincts;
mod error;
pub(crate) mod literal;
mod operators;
mod relations;
mod rewrite;
mod state;
pub(crate) mod text_form;
mod type_names;
mod unions;
mod untyped;
mod zone;

pub use casts::assigned;
pub use depth::{DEPTH_MAX, check_depth};
pub use error::{syntax_error, to_error};
pub use rewrite::{output_columns, rewrite};
pub use state::{SqlOptions, config, session_state};
pub use type_names::pg_type;
pub use zone::{Zone, is_finite, offset_text};
