//! Dates and times as text. `read` has the four entries and the fast path for the form that data comes in, `fields`
//! the general grammar, `write` the ISO output.
//!
//! Values are Arrow's: microseconds (or days) since 1970-01-01, UTC for `timestamptz`, with the extremes of the integer
//! as PostgreSQL's infinities.

mod fields;
mod read;
mod write;

use super::zone::TimeZone;
use crate::Settings;
use proto::Result;

pub use read::{parse_date, parse_time, parse_timestamp, parse_timestamptz};
pub use write::{write_date, write_time, write_timestamp, write_timestamptz};

/// What a text about time is read against: the session's zone, and its `now()` for words such as `today`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeContext {
    pub zone: TimeZone,
    /// Microseconds since 1970-01-01 UTC.
    pub now_us: i64,
}

impl TimeContext {
    pub const UTC: TimeContext = TimeContext { zone: TimeZone::UTC, now_us: 0 };

    /// # Errors
    /// 22023 when the session's zone is not known.
    pub fn of_session(settings: &Settings) -> Result<TimeContext> {
        Ok(TimeContext { zone: TimeZone::parse(&settings.time_zone)?, now_us: settings.now_us })
    }
}
