//! Mathematics with PostgreSQL's result types: rounding keeps `numeric` exact and `double precision` half-even.

use super::arithmetic::{division_by_zero, float_out_of_range, out_of_range};
use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, NUMERIC, as_decimal, class, scale_of, wider_integer};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("round", rounding, |call| round(call, Rounding::HalfAway)).field(rounded_field).udf(),
        Function::new("trunc", rounding, |call| round(call, Rounding::Zero)).field(rounded_field).udf(),
        Function::new("ceil", whole, |call| round(call, Rounding::Up)).field(rounded_field).alias("ceiling").udf(),
        Function::new("floor", whole, |call| round(call, Rounding::Down)).field(rounded_field).udf(),
        Function::new("abs", same_number, abs).udf(),
        Function::new("sign", float_or_numeric, sign).udf(),
        Function::new("mod", two_exact, remainder).udf(),
        Function::new("div", two_decimals, whole_quotient).udf(),
        Function::new("power", floats, power).alias("pow").operator("^").udf(),
        Function::new("exp", one_float, exp).udf(),
        Function::new("sqrt", one_float, |call| of_float(call, f64::sqrt, check_sqrt)).udf(),
        Function::new("ln", one_float, |call| of_float(call, f64::ln, check_log)).udf(),
        Function::new("log10", one_float, |call| of_float(call, f64::log10, check_log)).udf(),
        Function::new("log", log_types, log).udf(),
        Function::new("width_bucket", width_bucket_types, width_bucket).udf(),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    HalfAway,
    Zero,
    Up,
    Down,
}

/// One number, or a `numeric` and a count of digits.
fn rounding(types: &[DataType]) -> Option<Overload> {
    match types {
        [_] => whole(types),
        [value, _] if matches!(class(value), Class::Integer | Class::Numeric | Class::Unknown) => {
            let decimal = as_decimal(value);
            Some(Overload::new([decimal, DataType::Int32], NUMERIC))
        }
        _ => None,
    }
}

fn whole(types: &[DataType]) -> Option<Overload> {
    let [ty] = types else { return None };
    match class(ty) {
        Class::Numeric => Some(Overload::new([ty.clone()], DataType::Decimal128(38, 0))),
        Class::Integer | Class::Float | Class::Unknown => Some(Overload::new([DataType::Float64], DataType::Float64)),
        _ => None,
    }
}

/// `round(x, 2)` with a constant 2 has exactly two digits.
fn rounded_field(args: &ReturnFieldArgs) -> Result<Option<FieldRef>> {
    let digits = match args.scalar_arguments.get(1) {
        Some(Some(ScalarValue::Int32(Some(digits)))) => i64::from(*digits),
        Some(Some(ScalarValue::Int64(Some(digits)))) => *digits,
        _ => return Ok(None),
    };
    let scale = digits.clamp(0, i64::from(super::types::NUMERIC_SCALE)) as i8;
    Ok(Some(Arc::new(Field::new("round", DataType::Decimal128(38, scale), true))))
}

fn round(call: &Call, rounding: Rounding) -> Result<ArrayRef> {
    let values = call.array(0)?;
    if let DataType::Float64 = values.data_type() {
        let rounded: Float64Array = values.as_primitive::<Float64Type>().unary(|value| match rounding {
            Rounding::HalfAway => value.round_ties_even(),
            Rounding::Zero => value.trunc(),
            Rounding::Up => value.ceil(),
            Rounding::Down => value.floor(),
        });
        return Ok(Arc::new(rounded));
    }
    let from = i32::from(scale_of(values.data_type()));
    let to = i32::from(scale_of(call.result));
    let digits = if call.args.len() == 2 { Some(call.array(1)?) } else { None };
    let values = values.as_primitive::<Decimal128Type>();
    let mut results: Vec<Option<i128>> = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let digits = match &digits {
            None => Some(0),
            Some(array) => {
                let array = array.as_primitive::<Int32Type>();
                array.is_valid(row).then(|| array.value(row))
            }
        };
        results.push(match digits {
            Some(digits) if values.is_valid(row) => {
                let rounded = round_decimal(values.value(row), from, digits, to, rounding);
                Some(rounded.ok_or_else(|| raise(out_of_range(&NUMERIC)))?)
            }
            _ => None,
        });
    }
    Ok(Arc::new(Decimal128Array::from(results).with_precision_and_scale(38, to as i8)?))
}

/// `value` of scale `from`, rounded to `digits` after the point, in scale `to`.
fn round_decimal(value: i128, from: i32, digits: i32, to: i32, rounding: Rounding) -> Option<i128> {
    let cut = from.saturating_sub(digits);
    let rounded = if cut <= 0 {
        value
    } else if cut > 38 {
        0
    } else {
        let unit = 10i128.checked_pow(cut as u32)?;
        let (quotient, rest) = (value / unit, value % unit);
        let away = match rounding {
            Rounding::HalfAway => rest.unsigned_abs() >= unit.unsigned_abs().div_ceil(2),
            Rounding::Zero => false,
            Rounding::Up => rest > 0,
            Rounding::Down => rest < 0,
        };
        let whole = if away { quotient + if value < 0 { -1 } else { 1 } } else { quotient };
        whole.checked_mul(unit)?
    };
    match to - from {
        0 => Some(rounded),
        up @ 1.. => rounded.checked_mul(10i128.checked_pow(up as u32)?),
        down => Some(rounded / 10i128.checked_pow(down.unsigned_abs())?),
    }
}

fn same_number(types: &[DataType]) -> Option<Overload> {
    let [ty] = types else { return None };
    let ty = match class(ty) {
        Class::Integer => wider_integer(ty, ty),
        Class::Numeric | Class::Float => ty.clone(),
        Class::Unknown => DataType::Float64,
        _ => return None,
    };
    Some(Overload::new([ty.clone()], ty))
}

fn abs(call: &Call) -> Result<ArrayRef> {
    fn integers<T: ArrowPrimitiveType>(call: &Call, abs: fn(T::Native) -> Option<T::Native>) -> Result<ArrayRef> {
        let values = call.array(0)?;
        let range = || raise(out_of_range(call.result));
        let absolute: PrimitiveArray<T> = values.as_primitive::<T>().try_unary(|value| abs(value).ok_or_else(range))?;
        Ok(Arc::new(absolute))
    }
    let values = call.array(0)?;
    match call.result {
        DataType::Int16 => integers::<Int16Type>(call, i16::checked_abs),
        DataType::Int32 => integers::<Int32Type>(call, i32::checked_abs),
        DataType::Int64 => integers::<Int64Type>(call, i64::checked_abs),
        DataType::Float32 => Ok(Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::abs))),
        DataType::Float64 => Ok(Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::abs))),
        _ => {
            let absolute: Decimal128Array = values.as_primitive::<Decimal128Type>().unary(i128::abs);
            Ok(Arc::new(absolute.with_data_type(call.result.clone())))
        }
    }
}

fn float_or_numeric(types: &[DataType]) -> Option<Overload> {
    whole(types)
}

fn sign(call: &Call) -> Result<ArrayRef> {
    let values = call.array(0)?;
    if let DataType::Float64 = values.data_type() {
        let signs: Float64Array = values.as_primitive::<Float64Type>().unary(|value| match value {
            value if value > 0.0 => 1.0,
            value if value < 0.0 => -1.0,
            value => value,
        });
        return Ok(Arc::new(signs));
    }
    let signs: Decimal128Array = values.as_primitive::<Decimal128Type>().unary(i128::signum);
    Ok(Arc::new(signs.with_precision_and_scale(38, 0)?))
}

fn two_exact(types: &[DataType]) -> Option<Overload> {
    let [left, right] = types else { return None };
    match (class(left), class(right)) {
        (Class::Integer, Class::Integer | Class::Unknown) | (Class::Unknown, Class::Integer) => {
            let ty = wider_integer(left, right);
            Some(Overload::new([ty.clone(), ty.clone()], ty))
        }
        (Class::Integer | Class::Numeric, Class::Integer | Class::Numeric) => {
            let scale = scale_of(left).max(scale_of(right));
            let ty = DataType::Decimal128(38, scale);
            Some(Overload::new([ty.clone(), ty.clone()], ty))
        }
        _ => None,
    }
}

fn remainder(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.array(0)?, call.array(1)?);
    let rest = arrow::compute::kernels::numeric::rem(&left, &right);
    rest.map_err(|error| match error {
        arrow::error::ArrowError::DivideByZero => raise(division_by_zero()),
        other => other.into(),
    })
}

fn two_decimals(types: &[DataType]) -> Option<Overload> {
    let [left, right] = types else { return None };
    let exact = |ty: &DataType| matches!(class(ty), Class::Integer | Class::Numeric | Class::Unknown);
    if !exact(left) || !exact(right) {
        return None;
    }
    let ty = DataType::Decimal128(38, scale_of(left).max(scale_of(right)));
    Some(Overload::new([ty.clone(), ty], DataType::Decimal128(38, 0)))
}

fn whole_quotient(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.array(0)?, call.array(1)?);
    let quotient: Decimal128Array = arrow::compute::try_binary(
        left.as_primitive::<Decimal128Type>(),
        right.as_primitive::<Decimal128Type>(),
        |a: i128, b: i128| a.checked_div(b).ok_or(arrow::error::ArrowError::DivideByZero),
    )
    .map_err(|_| raise(division_by_zero()))?;
    Ok(Arc::new(quotient.with_precision_and_scale(38, 0)?))
}

fn floats(types: &[DataType]) -> Option<Overload> {
    let [left, right] = types else { return None };
    let exact = |ty: &DataType| matches!(class(ty), Class::Numeric);
    let float = |ty: &DataType| matches!(class(ty), Class::Float);
    // numeric ^ numeric stays numeric; anything else is double precision.
    let ty = match (exact(left) || exact(right)) && !float(left) && !float(right) {
        true => NUMERIC,
        false => DataType::Float64,
    };
    Some(Overload::new([ty.clone(), ty.clone()], ty))
}

fn power(call: &Call) -> Result<ArrayRef> {
    let (bases, exponents) = (call.array(0)?, call.array(1)?);
    let (bases, exponents) =
        (arrow::compute::cast(&bases, &DataType::Float64)?, arrow::compute::cast(&exponents, &DataType::Float64)?);
    let (bases, exponents) = (bases.as_primitive::<Float64Type>(), exponents.as_primitive::<Float64Type>());
    let mut results: Vec<Option<f64>> = Vec::with_capacity(call.rows);
    for (base, exponent) in bases.iter().zip(exponents.iter()) {
        let (Some(base), Some(exponent)) = (base, exponent) else {
            results.push(None);
            continue;
        };
        if base == 0.0 && exponent < 0.0 {
            return Err(raise(invalid_power("zero raised to a negative power is undefined")));
        }
        if base < 0.0 && exponent.fract() != 0.0 {
            let message = "a negative number raised to a non-integer power yields a complex result";
            return Err(raise(invalid_power(message)));
        }
        let power = base.powf(exponent);
        if power.is_infinite() && base.is_finite() && exponent.is_finite() {
            return Err(raise(out_of_range(&DataType::Float64)));
        }
        results.push(Some(power));
    }
    let floats: ArrayRef = Arc::new(Float64Array::from(results));
    match class(call.result) {
        Class::Numeric => super::cast::convert(&floats, call.result, crate::semantics::Zone::UTC, 0),
        _ => Ok(floats),
    }
}

fn invalid_power(message: &str) -> Error {
    Error::new(SqlState::new("2201F"), message)
}

fn one_float(types: &[DataType]) -> Option<Overload> {
    let [ty] = types else { return None };
    let number = matches!(class(ty), Class::Integer | Class::Numeric | Class::Float | Class::Unknown);
    number.then(|| Overload::new([DataType::Float64], DataType::Float64))
}

fn check_sqrt(value: f64) -> Result<(), Error> {
    match value < 0.0 {
        true => Err(invalid_power("cannot take square root of a negative number")),
        false => Ok(()),
    }
}

fn check_log(value: f64) -> Result<(), Error> {
    let message = match value {
        0.0 => "cannot take logarithm of zero",
        value if value < 0.0 => "cannot take logarithm of a negative number",
        _ => return Ok(()),
    };
    Err(Error::new(SqlState::new("2201E"), message))
}

fn of_float(call: &Call, function: fn(f64) -> f64, check: fn(f64) -> Result<(), Error>) -> Result<ArrayRef> {
    let values = call.array(0)?;
    let checked = |value: f64| check(value).map(|()| function(value)).map_err(raise);
    let results: Float64Array = values.as_primitive::<Float64Type>().try_unary(checked)?;
    Ok(Arc::new(results))
}

fn exp(call: &Call) -> Result<ArrayRef> {
    let values = call.array(0)?;
    let exponential = |value: f64| match value.exp() {
        infinite if infinite.is_infinite() && value.is_finite() => Err(raise(float_out_of_range("overflow"))),
        zero if zero == 0.0 && value.is_finite() => Err(raise(float_out_of_range("underflow"))),
        result => Ok(result),
    };
    let results: Float64Array = values.as_primitive::<Float64Type>().try_unary(exponential)?;
    Ok(Arc::new(results))
}

/// `log(x)` to base 10, or `log(base, x)`, which is `numeric`.
fn log_types(types: &[DataType]) -> Option<Overload> {
    match types {
        [_, _] => Some(Overload::new([NUMERIC, NUMERIC], NUMERIC)),
        types => one_float(types),
    }
}

fn log(call: &Call) -> Result<ArrayRef> {
    if call.args.len() == 1 {
        return of_float(call, f64::log10, check_log);
    }
    let double =
        |index: usize| -> Result<ArrayRef> { Ok(arrow::compute::cast(&call.array(index)?, &DataType::Float64)?) };
    let (bases, values) = (double(0)?, double(1)?);
    let mut results: Vec<Option<f64>> = Vec::with_capacity(call.rows);
    for (base, value) in bases.as_primitive::<Float64Type>().iter().zip(values.as_primitive::<Float64Type>().iter()) {
        let (Some(base), Some(value)) = (base, value) else {
            results.push(None);
            continue;
        };
        check_log(base).and_then(|()| check_log(value)).map_err(raise)?;
        if base == 1.0 {
            return Err(raise(division_by_zero()));
        }
        results.push(Some(value.log(base)));
    }
    let results: ArrayRef = Arc::new(Float64Array::from(results));
    super::cast::convert(&results, &NUMERIC, crate::semantics::Zone::UTC, 0)
}

fn width_bucket_types(types: &[DataType]) -> Option<Overload> {
    (types.len() == 4).then(|| {
        Overload::new([DataType::Float64, DataType::Float64, DataType::Float64, DataType::Int32], DataType::Int32)
    })
}

fn width_bucket(call: &Call) -> Result<ArrayRef> {
    let arrays = [call.array(0)?, call.array(1)?, call.array(2)?];
    let [values, lows, highs] = arrays.each_ref().map(|array| array.as_primitive::<Float64Type>());
    let counts = call.array(3)?;
    let counts = counts.as_primitive::<Int32Type>();
    let invalid = |message: &str| raise(Error::new(SqlState::new("2201G"), message));
    let bucket = |row: usize| -> Result<Option<i32>> {
        if values.is_null(row) || lows.is_null(row) || highs.is_null(row) || counts.is_null(row) {
            return Ok(None);
        }
        let (value, low, high, count) = (values.value(row), lows.value(row), highs.value(row), counts.value(row));
        if count <= 0 {
            return Err(invalid("count must be greater than zero"));
        }
        if low == high {
            return Err(invalid("lower bound cannot equal upper bound"));
        }
        let position = (value - low) / (high - low);
        Ok(Some(match position {
            position if position < 0.0 => 0,
            position if position >= 1.0 => count.checked_add(1).ok_or_else(|| raise(out_of_range(&DataType::Int32)))?,
            position => ((position * f64::from(count)).floor() as i32 + 1).min(count),
        }))
    };
    Ok(Arc::new(Int32Array::from_iter((0..call.rows).map(bucket).collect::<Result<Vec<_>>>()?)))
}
