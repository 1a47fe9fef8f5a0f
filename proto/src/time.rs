//! The user's time: i64 microseconds since 1970-01-01 00:00 UTC (or plain integers on integer hypertables),
//! half-open ranges of it, and the slicing of a time dimension into ranges.

use serde::{Deserialize, Serialize};

/// Half-open range `[start, end)`. `i64::MIN` and `i64::MAX` stand for "unbounded".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimeRange {
    start: i64,
    end: i64,
}

impl TimeRange {
    pub const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

    /// `None` when the range would be empty.
    pub fn new(start: i64, end: i64) -> Option<TimeRange> {
        (start < end).then_some(TimeRange { start, end })
    }

    pub fn start(&self) -> i64 {
        self.start
    }

    pub fn end(&self) -> i64 {
        self.end
    }

    /// An unbounded end includes `i64::MAX` itself, so that `ALL` contains every time.
    pub fn contains(&self, time: i64) -> bool {
        self.start <= time && (time < self.end || self.end == i64::MAX)
    }

    pub fn overlaps(&self, other: &TimeRange) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// How a time dimension is cut: slices of equal width, aligned to the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSlicing {
    width: i64,
}

impl TimeSlicing {
    /// `None` unless `width` is positive.
    pub fn new(width: i64) -> Option<TimeSlicing> {
        (width > 0).then_some(TimeSlicing { width })
    }

    pub fn width(&self) -> i64 {
        self.width
    }

    /// The slice that holds `time`; clipped at the ends of i64.
    pub fn slice(&self, time: i64) -> TimeRange {
        let start = time.checked_sub(time.rem_euclid(self.width)).unwrap_or(i64::MIN);
        let end = start.checked_add(self.width).unwrap_or(i64::MAX);
        TimeRange { start, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK_US: i64 = 7 * 24 * 3600 * 1_000_000;

    #[test]
    fn seven_day_slices_start_on_thursdays() {
        let new_year_2019 = 1_546_300_800_000_000;
        let slice = TimeSlicing::new(WEEK_US).unwrap().slice(new_year_2019);
        assert_eq!(slice.start(), 1_545_868_800_000_000, "2018-12-27 00:00 UTC");
        assert_eq!(slice.end() - slice.start(), WEEK_US);
    }

    #[test]
    fn times_before_the_epoch_fall_into_the_slice_that_contains_them() {
        let slicing = TimeSlicing::new(10).unwrap();
        assert_eq!(slicing.slice(-1), TimeRange::new(-10, 0).unwrap());
        assert_eq!(slicing.slice(-10), TimeRange::new(-10, 0).unwrap());
        assert_eq!(slicing.slice(0), TimeRange::new(0, 10).unwrap());
    }

    #[test]
    fn the_ends_of_time_are_inside_a_slice() {
        let slicing = TimeSlicing::new(WEEK_US).unwrap();
        assert!(slicing.slice(i64::MAX).contains(i64::MAX));
        assert!(slicing.slice(i64::MIN).contains(i64::MIN));
    }
}
