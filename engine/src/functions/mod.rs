//! SQL functions: ours where DataFusion has none or gives another answer than PostgreSQL, DataFusion's where it agrees.
//!
//! A data node decodes plans with the same registry, by name, so no function holds state of a session: what depends on
//! the session (zone, `now()`) is read from the configuration or folded into the plan.

pub mod arithmetic;
mod avg;
mod bookend;
pub mod cast;
mod clock;
pub mod date_arithmetic;
mod date_makers;
mod date_parts;
mod exact_avg;
mod extremes;
pub mod gapfill;
mod histogram;
mod intervals;
mod math;
mod narrowed;
mod numeric_digits;
mod ordered_set;
mod overlaps;
mod regexp;
mod registry;
pub mod scalar;
pub mod series;
mod spread;
mod substring;
mod sum;
mod text;
pub mod time_bucket;
mod to_char;
mod to_char_number;
mod typed_text;
pub mod types;
pub mod undefined;
mod widened;

pub use registry::{FUNCTIONS, Registry, call};
pub use scalar::raise;
