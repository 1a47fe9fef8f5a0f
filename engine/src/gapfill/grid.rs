//! Where buckets start, one after the other.
//!
//! A time is a number in the units of its type (microseconds, days, or an integer time's own). Buckets are counted on a
//! clock: the wall clock of the zone they were asked for in, else the time itself; so days of a zone with daylight
//! saving have 23, 24 or 25 hours.

use super::invalid;
use crate::functions::date_arithmetic::DAY_US;
use crate::functions::time_bucket::{Width, bucket};
use crate::semantics::Zone;
use proto::Error;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Grid {
    Integers {
        period: i64,
    },
    Days {
        width: Width,
    },
    Times {
        width: Width,
        /// As the statement named it.
        zone: Option<String>,
    },
}

/// Starts of buckets in a row, from one on.
#[derive(Debug, Clone)]
pub struct Starts {
    grid: Grid,
    zone: Zone,
    /// On the grid's clock.
    next: Option<i64>,
    last: Option<i64>,
    first: Option<i64>,
}

impl Starts {
    /// Whether `time` is the first of all.
    pub fn is_first(&self, time: i64) -> bool {
        self.first == Some(time)
    }
}

impl Grid {
    /// # Errors
    /// 22023 when nothing of the zone's name exists.
    pub fn zone(&self) -> Result<Zone, Error> {
        match self {
            Grid::Times { zone: Some(name), .. } => Zone::parse(name),
            _ => Ok(Zone::UTC),
        }
    }

    /// The buckets from the one that holds `time`.
    ///
    /// # Errors
    /// 22023 for buckets without a length, 22008 when the first starts beyond the range of its type.
    pub fn starts(&self, time: i64, zone: Zone) -> Result<Starts, Error> {
        let length = match self {
            Grid::Integers { period } => *period,
            Grid::Days { width: Width::Us(length) | Width::Months(length) }
            | Grid::Times { width: Width::Us(length) | Width::Months(length), .. } => *length,
        };
        if length <= 0 {
            return Err(invalid("bucket_width must be greater than 0"));
        }
        let clock = match self {
            Grid::Integers { period } => bucket(*period, time, 0)?,
            Grid::Days { width } => width.start(days_us(time)?, None)?,
            Grid::Times { width, .. } => width.start(zone.to_local(time), None)?,
        };
        let mut starts = Starts { grid: self.clone(), zone, next: Some(clock), last: None, first: None };
        starts.first = starts.clone().next();
        Ok(starts)
    }
}

fn days_us(days: i64) -> Result<i64, Error> {
    days.checked_mul(DAY_US).ok_or_else(|| invalid("date out of range"))
}

impl Iterator for Starts {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        loop {
            let clock = self.next?;
            let (time, next) = match &self.grid {
                Grid::Integers { period } => (clock, clock.checked_add(*period)),
                Grid::Days { width } => (clock.div_euclid(DAY_US), width.end(clock)),
                Grid::Times { width, .. } => (self.zone.to_utc(clock), width.end(clock)),
            };
            self.next = next;
            // Two wall clocks may stand for one time when clocks are set forward.
            if self.last.is_none_or(|last| last < time) {
                self.last = Some(time);
                return Some(time);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn us(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn first(grid: &Grid, from: i64, count: usize) -> Vec<i64> {
        grid.starts(from, grid.zone().unwrap()).unwrap().take(count).collect()
    }

    #[test]
    fn buckets_follow_each_other() {
        assert_eq!(first(&Grid::Integers { period: 10 }, -5, 3), [-10, 0, 10]);
        assert_eq!(first(&Grid::Integers { period: i64::MAX }, 1, 3), [0, i64::MAX]);
        let months = Grid::Times { width: Width::Months(1), zone: None };
        let expected = ["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"].map(us);
        assert_eq!(first(&months, us("2024-01-31T10:00:00Z"), 3), expected);
        // Weeks start on Mondays; 2024-01-01 is one, day 19723 since 1970.
        assert_eq!(first(&Grid::Days { width: Width::Us(7 * DAY_US) }, 19_725, 2), [19_723, 19_730]);
    }

    /// PostgreSQL 15: `generate_series('2024-03-30', '2024-04-01', '1 day') AT TIME ZONE 'Europe/Berlin'`.
    #[test]
    fn days_of_a_zone_are_as_long_as_its_clocks_make_them() {
        let days = Grid::Times { width: Width::Us(DAY_US), zone: Some("Europe/Berlin".into()) };
        let expected = ["2024-03-29T23:00:00Z", "2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"].map(us);
        assert_eq!(first(&days, us("2024-03-30T12:00:00Z"), 3), expected);
        let hours = Grid::Times { width: Width::Us(HOUR_US), zone: Some("Europe/Berlin".into()) };
        let from = us("2024-03-31T00:00:00Z");
        assert_eq!(first(&hours, from, 3), [from, from + HOUR_US, from + 2 * HOUR_US]);
    }
}
