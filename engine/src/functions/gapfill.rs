//! `time_bucket_gapfill`, `locf` and `interpolate` by name and type. What they do is `crate::gapfill`'s, which takes
//! them out of every aggregation by a `time_bucket_gapfill`; elsewhere, as in TimescaleDB, the first is a `time_bucket`
//! and the others are their first argument.

use super::scalar::{Call, Function, Overload};
use super::time_bucket;
use super::types::{Class, TIMESTAMP, class, timestamptz, wider_integer};
use crate::PgType;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};
use std::sync::Arc;

/// `(bucket_width, time [, timezone] [, start, finish])`.
pub const BUCKET: &str = "time_bucket_gapfill";
/// The form with `start` or `finish` by name, whose third argument is no zone: `(bucket_width, time, start, finish)`.
pub const BUCKET_WITHIN: &str = "time_bucket_gapfill_within";
/// `(value [, prev] [, treat_null_as_missing])`.
pub const LOCF: &str = "locf";
/// `(value [, prev] [, next])`.
pub const INTERPOLATE: &str = "interpolate";

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new(BUCKET, |types| bucket(types, true), start).follows(1).udf(),
        Function::new(BUCKET_WITHIN, |types| bucket(types, false), start).follows(1).udf(),
        Function::new(LOCF, carried, first_argument).field(field_of_first).udf(),
        Function::new(INTERPOLATE, interpolated, first_argument).field(field_of_first).udf(),
    ]
}

/// Of a call's argument types, those of its zone, if it has one, and of its start and finish.
pub fn zone_and_range(types: &[DataType]) -> (Option<usize>, std::ops::Range<usize>) {
    let zoned = types.len() > 2 && class(&types[1]) == Class::Timestamptz && class(&types[2]) == Class::Text;
    (zoned.then_some(2), if zoned { 3 } else { 2 }..types.len())
}

fn bucket(types: &[DataType], zone_allowed: bool) -> Option<Overload> {
    let plain = time_bucket::overload(types.get(..2)?)?;
    let (width, mut time) = (plain.args[0].clone(), plain.result);
    let rest = &types[2..];
    // An untyped literal in third place is a zone, as PostgreSQL prefers text.
    let zoned = zone_allowed
        && class(&time) == Class::Timestamptz
        && rest.first().is_some_and(|third| class(third) == Class::Text || rest.len() > 2);
    let range = if zoned { &rest[1..] } else { rest };
    if range.len() > 2 {
        return None;
    }
    let integers = class(&time) == Class::Integer;
    for bound in range {
        time = match (class(&time), class(bound)) {
            (_, Class::Unknown | Class::Text) => time,
            (Class::Integer, Class::Integer) => wider_integer(&time, bound),
            (Class::Date, Class::Timestamp) => TIMESTAMP,
            (Class::Date | Class::Timestamp, Class::Timestamptz) => timestamptz(),
            (Class::Date | Class::Timestamp | Class::Timestamptz, Class::Date | Class::Timestamp)
            | (Class::Timestamptz, Class::Timestamptz) => time,
            _ => return None,
        };
    }
    let mut args = vec![if integers { time.clone() } else { width }, time.clone()];
    args.extend(zoned.then_some(DataType::Utf8));
    args.extend(range.iter().map(|_| time.clone()));
    Some(Overload::new(args, time))
}

fn start(call: &Call) -> Result<ArrayRef> {
    let types: Vec<DataType> = call.fields.iter().map(|field| field.data_type().clone()).collect();
    let (zone, _) = zone_and_range(&types);
    let count = zone.map_or(2, |zone| zone + 1);
    time_bucket::evaluate(&Call { args: &call.args[..count], fields: &call.fields[..count], ..*call })
}

fn carried(types: &[DataType]) -> Option<Overload> {
    let (value, options) = types.split_first()?;
    let ty = match (class(value), options.first()) {
        (Class::Unknown, Some(prev)) if class(prev) != Class::Unknown => prev.clone(),
        (Class::Unknown, _) => DataType::Utf8,
        _ => value.clone(),
    };
    let flag = |ty: &DataType| matches!(class(ty), Class::Bool | Class::Unknown | Class::Text);
    match options {
        [] | [_] => {}
        [_, missing] if flag(missing) => {}
        _ => return None,
    }
    let args = [ty.clone(), ty.clone(), DataType::Boolean];
    Some(Overload::new(&args[..types.len()], ty))
}

fn interpolated(types: &[DataType]) -> Option<Overload> {
    let (value, samples) = types.split_first()?;
    let ty = match class(value) {
        Class::Integer => wider_integer(&DataType::Int16, value),
        Class::Float => value.clone(),
        // The preferred type among numbers.
        Class::Numeric | Class::Unknown => DataType::Float64,
        _ => return None,
    };
    let record = |ty: &DataType| matches!(ty, DataType::Struct(_) | DataType::Null);
    if samples.len() > 2 || !samples.iter().all(record) {
        return None;
    }
    Some(Overload::new(std::iter::once(ty.clone()).chain(samples.iter().cloned()).collect::<Vec<_>>(), ty))
}

fn first_argument(call: &Call) -> Result<ArrayRef> {
    call.array(0)
}

/// The value's Postgres type, where Arrow alone would not tell it.
fn field_of_first(args: &ReturnFieldArgs) -> Result<Option<FieldRef>> {
    let Some(value) = args.arg_fields.first() else { return Ok(None) };
    let ty = match value.data_type() {
        DataType::Null | DataType::Decimal128(..) => None,
        _ => PgType::from_field(value),
    };
    Ok(ty.map(|ty| Arc::new(ty.field(value.name(), true))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::types::INTERVAL;
    use DataType::{Boolean, Date32, Decimal128, Float32, Float64, Int16, Int32, Int64, Null, Utf8};

    #[test]
    fn widths_and_bounds_take_the_type_of_the_time() {
        let args = |types: &[DataType]| bucket(types, true).map(|overload| overload.args);
        let tz = timestamptz();
        assert_eq!(args(&[Utf8, tz.clone()]), Some(vec![INTERVAL, tz.clone()]));
        assert_eq!(args(&[Utf8, tz.clone(), Utf8]), Some(vec![INTERVAL, tz.clone(), Utf8]));
        assert_eq!(
            args(&[Utf8, tz.clone(), Utf8, tz.clone(), Utf8]),
            Some(vec![INTERVAL, tz.clone(), Utf8, tz.clone(), tz.clone()])
        );
        assert_eq!(
            args(&[Utf8, tz.clone(), tz.clone(), Utf8]),
            Some(vec![INTERVAL, tz.clone(), tz.clone(), tz.clone()])
        );
        assert_eq!(args(&[Utf8, TIMESTAMP, Utf8, Utf8]), Some(vec![INTERVAL, TIMESTAMP, TIMESTAMP, TIMESTAMP]));
        assert_eq!(args(&[Utf8, Date32, Utf8, Null]), Some(vec![INTERVAL, Date32, Date32, Date32]));
        assert_eq!(args(&[Int32, Int16, Int64, Int32]), Some(vec![Int64; 4]));
        assert_eq!(args(&[Utf8, TIMESTAMP, Utf8, Utf8, Utf8]), None);
        assert_eq!(args(&[Int32, Int32, Boolean]), None);
        let within = bucket(&[Utf8, tz.clone(), Utf8, Null], false).unwrap();
        assert_eq!(within.args, [INTERVAL, tz.clone(), tz.clone(), tz]);
    }

    #[test]
    fn numbers_are_interpolated_in_their_own_type() {
        let result = |ty: DataType| interpolated(&[ty]).map(|overload| overload.result);
        for ty in [Int16, Int32, Int64, Float32, Float64] {
            assert_eq!(result(ty.clone()), Some(ty));
        }
        assert_eq!(result(Decimal128(10, 2)), Some(Float64));
        assert_eq!(result(Utf8), None);
        assert_eq!(result(Boolean), None);
    }
}
