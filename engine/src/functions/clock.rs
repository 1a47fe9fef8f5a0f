//! Now, here, and by chance: functions whose answer depends on the session or on nothing at all.

use super::date_arithmetic::DAY_US;
use super::scalar::{Call, Function, Overload, raise, session_now};
use super::types::{Class, INTERVAL, TIMESTAMP, class, timestamptz};
use crate::semantics::Zone;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::math::random;
use datafusion::functions::string::uuid;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ScalarUDF};
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("now", no_args, now)
            .alias("transaction_timestamp")
            .alias("statement_timestamp")
            .alias("clock_timestamp")
            .stable()
            .simplify(now_literal)
            .udf(),
        Function::new("timezone", zone_and_time, timezone).udf(),
        random(),
        Arc::new(uuid().as_ref().clone().with_aliases(["gen_random_uuid"])),
    ]
}

fn no_args(types: &[DataType]) -> Option<Overload> {
    types.is_empty().then(|| Overload::new([], timestamptz()))
}

fn now(call: &Call) -> Result<ArrayRef> {
    let times = TimestampMicrosecondArray::from_value(session_now(call.config), call.rows);
    Ok(Arc::new(times.with_timezone("UTC")))
}

/// `now()` is a constant of the statement: it leaves the plan before the plan leaves the coordinator.
fn now_literal(_args: &[Expr], context: &SimplifyContext) -> Result<Option<Expr>> {
    let now = session_now(context.config_options());
    Ok(Some(Expr::Literal(ScalarValue::TimestampMicrosecond(Some(now), Some("UTC".into())), None)))
}

/// `AT TIME ZONE`: an absolute time becomes the wall clock of a zone, a wall clock becomes absolute.
fn zone_and_time(types: &[DataType]) -> Option<Overload> {
    let [zone, time] = types else { return None };
    let zone = if class(zone) == Class::Interval { INTERVAL } else { DataType::Utf8 };
    match class(time) {
        Class::Timestamptz | Class::Text | Class::Unknown | Class::Date => {
            Some(Overload::new([zone, timestamptz()], TIMESTAMP))
        }
        Class::Timestamp => Some(Overload::new([zone, TIMESTAMP], timestamptz())),
        _ => None,
    }
}

fn timezone(call: &Call) -> Result<ArrayRef> {
    let (zones, times) = (call.array(0)?, call.array(1)?);
    let to_local = class(call.result) == Class::Timestamp;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let convert = |zone: Zone, us: i64| if to_local { zone.to_local(us) } else { zone.to_utc(us) };
    let mut results: Vec<Option<i64>> = Vec::with_capacity(call.rows);
    let mut last: Option<(String, Zone)> = None;
    for row in 0..call.rows {
        if zones.is_null(row) || times.is_null(row) {
            results.push(None);
            continue;
        }
        let zone = match zones.data_type() {
            DataType::Interval(_) => interval_zone(zones.as_primitive::<IntervalMonthDayNanoType>().value(row))?,
            _ => {
                let name = zones.as_string::<i32>().value(row);
                match &last {
                    Some((cached, zone)) if cached == name => *zone,
                    _ => {
                        let zone = Zone::parse(name).map_err(raise)?;
                        last = Some((name.to_owned(), zone));
                        zone
                    }
                }
            }
        };
        results.push(Some(convert(zone, times.value(row))));
    }
    let array = PrimitiveArray::<TimestampMicrosecondType>::from_iter(results);
    Ok(Arc::new(array.with_data_type(call.result.clone())))
}

fn interval_zone(value: arrow::datatypes::IntervalMonthDayNano) -> Result<Zone> {
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    if months != 0 || days != 0 || (nanos / 1000).abs() >= DAY_US {
        let message = "interval time zone must not include months or days";
        return Err(raise(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)));
    }
    Ok(Zone::fixed((nanos / 1_000_000_000) as i32))
}
