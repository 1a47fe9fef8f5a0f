//! The units of an interval and their spellings.

/// What a unit is a multiple of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnitOf {
    Microseconds,
    Days,
    Months,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) of: UnitOf,
    pub(super) count: i64,
    /// One bit per field that may come once only.
    pub(super) class: u32,
}

const fn unit(of: UnitOf, count: i64, class: u32) -> Unit {
    Unit { of, count, class: 1 << class }
}

impl Unit {
    pub(super) const MICROSECOND: Unit = unit(UnitOf::Microseconds, 1, 0);
    pub(super) const MILLISECOND: Unit = unit(UnitOf::Microseconds, 1_000, 1);
    pub(super) const SECOND: Unit = unit(UnitOf::Microseconds, 1_000_000, 2);
    pub(super) const MINUTE: Unit = unit(UnitOf::Microseconds, 60_000_000, 3);
    pub(super) const HOUR: Unit = unit(UnitOf::Microseconds, 3_600_000_000, 4);
    pub(super) const DAY: Unit = unit(UnitOf::Days, 1, 5);
    pub(super) const WEEK: Unit = unit(UnitOf::Days, 7, 6);
    pub(super) const MONTH: Unit = unit(UnitOf::Months, 1, 7);
    pub(super) const YEAR: Unit = unit(UnitOf::Months, 12, 8);
    pub(super) const DECADE: Unit = unit(UnitOf::Months, 120, 9);
    pub(super) const CENTURY: Unit = unit(UnitOf::Months, 1_200, 10);
    pub(super) const MILLENNIUM: Unit = unit(UnitOf::Months, 12_000, 11);

    pub(super) fn find(word: &str) -> Option<Unit> {
        Some(match word {
            "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" | "microsecon" => {
                Unit::MICROSECOND
            }
            "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" | "millisecon" => {
                Unit::MILLISECOND
            }
            "s" | "sec" | "secs" | "second" | "seconds" => Unit::SECOND,
            "m" | "min" | "mins" | "minute" | "minutes" => Unit::MINUTE,
            "h" | "hr" | "hrs" | "hour" | "hours" => Unit::HOUR,
            "d" | "day" | "days" => Unit::DAY,
            "w" | "week" | "weeks" => Unit::WEEK,
            "mon" | "mons" | "month" | "months" => Unit::MONTH,
            "y" | "yr" | "yrs" | "year" | "years" => Unit::YEAR,
            "dec" | "decs" | "decade" | "decades" => Unit::DECADE,
            "c" | "cent" | "century" | "centuries" => Unit::CENTURY,
            "mil" | "mils" | "millennia" | "millennium" => Unit::MILLENNIUM,
            _ => return None,
        })
    }
}
