//! Operators whose results differ from DataFusion's: checked integers and floats, numeric products and quotients.
//! The planner of operators calls them in place of the plain ones.

use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, NUMERIC, NUMERIC_SCALE, as_decimal, class, scale_of, wider_integer};
use arrow::array::{ArrayRef, AsArray, Datum, Decimal128Array};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, i256};
use arrow::error::ArrowError;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("int_add", integers, |call| checked(call, numeric::add)).operator("+").udf(),
        Function::new("int_sub", integers, |call| checked(call, numeric::sub)).operator("-").udf(),
        Function::new("int_mul", integers, |call| checked(call, numeric::mul)).operator("*").udf(),
        Function::new("float_add", floats, |call| float(call, numeric::add, sum_verdict)).operator("+").udf(),
        Function::new("float_sub", floats, |call| float(call, numeric::sub, sum_verdict)).operator("-").udf(),
        Function::new("float_mul", floats, |call| float(call, numeric::mul, product_verdict)).operator("*").udf(),
        Function::new("float_div", floats, |call| float(call, numeric::div, quotient_verdict)).operator("/").udf(),
        Function::new("numeric_mul", decimals, numeric_mul).operator("*").udf(),
        Function::new("numeric_div", decimals, numeric_div).operator("/").udf(),
    ]
}

pub fn out_of_range(ty: &DataType) -> Error {
    let name = match ty {
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        DataType::Decimal128(..) => {
            return Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format");
        }
        _ => return Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"),
    };
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"))
}

pub fn division_by_zero() -> Error {
    Error::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

fn integers(types: &[DataType]) -> Option<Overload> {
    let [left, right] = types else { return None };
    let integer = |ty| matches!(class(ty), Class::Integer | Class::Unknown);
    if !integer(left) || !integer(right) {
        return None;
    }
    let ty = wider_integer(left, right);
    Some(Overload::new([ty.clone(), ty.clone()], ty))
}

/// Two of a kind stay; `real` beside anything wider is widened.
fn floats(types: &[DataType]) -> Option<Overload> {
    let ty = match types {
        [DataType::Float32, DataType::Float32] => DataType::Float32,
        [_, _] => DataType::Float64,
        _ => return None,
    };
    Some(Overload::new([ty.clone(), ty.clone()], ty))
}

fn decimals(types: &[DataType]) -> Option<Overload> {
    let [left, right] = types else { return None };
    Some(Overload::new([as_decimal(left), as_decimal(right)], NUMERIC))
}

/// An argument as an arrow kernel takes it, without spreading a constant over rows.
pub fn datum(value: &ColumnarValue) -> Result<Box<dyn Datum>> {
    Ok(match value {
        ColumnarValue::Array(array) => Box::new(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => Box::new(scalar.to_scalar()?),
    })
}

fn checked(call: &Call, kernel: Kernel) -> Result<ArrayRef> {
    let (left, right) = (datum(&call.args[0])?, datum(&call.args[1])?);
    kernel(left.as_ref(), right.as_ref()).map_err(|error| match error {
        ArrowError::ArithmeticOverflow(_) => raise(out_of_range(call.result)),
        other => other.into(),
    })
}

type Kernel = fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>;

/// A kernel that follows IEEE 754, and then PostgreSQL's verdict on `(left, right, result)`.
fn float(call: &Call, kernel: Kernel, verdict: fn(f64, f64, f64) -> Result<(), Error>) -> Result<ArrayRef> {
    let (left, right) = (datum(&call.args[0])?, datum(&call.args[1])?);
    let result = kernel(left.as_ref(), right.as_ref())?;
    let fine = match call.result {
        DataType::Float32 => result.as_primitive::<Float32Type>().values().iter().all(|v| v.is_finite() && *v != 0.0),
        _ => result.as_primitive::<Float64Type>().values().iter().all(|v| v.is_finite() && *v != 0.0),
    };
    if fine {
        return Ok(result);
    }
    let double = |array: ArrayRef| arrow::compute::cast(&array, &DataType::Float64);
    let arrays = [double(call.array(0)?)?, double(call.array(1)?)?, double(Arc::clone(&result))?];
    let [left, right, results] = arrays.each_ref().map(|array| array.as_primitive::<Float64Type>());
    for (row, value) in results.iter().enumerate() {
        if let Some(value) = value {
            verdict(left.value(row), right.value(row), value).map_err(raise)?;
        }
    }
    Ok(unsigned(&result))
}

/// NaNs without their sign, by which Arrow would put some of them below all numbers.
fn unsigned(floats: &ArrayRef) -> ArrayRef {
    match floats.data_type() {
        DataType::Float32 => {
            let floats = floats.as_primitive::<Float32Type>();
            Arc::new(floats.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v }))
        }
        _ => {
            let floats = floats.as_primitive::<Float64Type>();
            Arc::new(floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v }))
        }
    }
}

pub fn float_out_of_range(what: &str) -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value out of range: {what}"))
}

fn sum_verdict(left: f64, right: f64, sum: f64) -> Result<(), Error> {
    match sum.is_infinite() && left.is_finite() && right.is_finite() {
        true => Err(float_out_of_range("overflow")),
        false => Ok(()),
    }
}

fn product_verdict(left: f64, right: f64, product: f64) -> Result<(), Error> {
    match product == 0.0 && left != 0.0 && right != 0.0 {
        true => Err(float_out_of_range("underflow")),
        false => sum_verdict(left, right, product),
    }
}

fn quotient_verdict(left: f64, right: f64, quotient: f64) -> Result<(), Error> {
    // NaN / 0 is NaN in PostgreSQL; anything else over zero is an error.
    match quotient {
        _ if right == 0.0 && !left.is_nan() => Err(division_by_zero()),
        infinite if infinite.is_infinite() && left.is_finite() => Err(float_out_of_range("overflow")),
        zero if zero == 0.0 && left != 0.0 && right.is_finite() => Err(float_out_of_range("underflow")),
        _ => Ok(()),
    }
}

fn numeric_mul(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.array(0)?, call.array(1)?);
    let shift = i32::from(scale_of(left.data_type()) + scale_of(right.data_type())) - i32::from(NUMERIC_SCALE);
    let product = |a: i128, b: i128| {
        let exact = i256::from_i128(a).wrapping_mul(i256::from_i128(b));
        match shift {
            0 => exact.to_i128(),
            1.. => divide_rounding(exact, power_of_ten(shift)?).to_i128(),
            _ => exact.checked_mul(power_of_ten(-shift)?)?.to_i128(),
        }
    };
    decimal_kernel(&left, &right, product, || out_of_range(&NUMERIC))
}

fn numeric_div(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.array(0)?, call.array(1)?);
    let divisors = right.as_primitive::<Decimal128Type>();
    let shift =
        i32::from(NUMERIC_SCALE) - i32::from(scale_of(left.data_type())) + i32::from(scale_of(right.data_type()));
    let quotient = |a: i128, b: i128| {
        let (mut a, mut b) = (i256::from_i128(a), i256::from_i128(b));
        match shift {
            0.. => a = a.checked_mul(power_of_ten(shift)?)?,
            _ => b = b.checked_mul(power_of_ten(-shift)?)?,
        }
        if b == i256::ZERO { None } else { divide_rounding(a, b).to_i128() }
    };
    let zero =
        divisors.iter().zip(left.as_primitive::<Decimal128Type>().iter()).any(|(b, a)| b == Some(0) && a.is_some());
    decimal_kernel(&left, &right, quotient, || if zero { division_by_zero() } else { out_of_range(&NUMERIC) })
}

fn decimal_kernel(
    left: &ArrayRef,
    right: &ArrayRef,
    kernel: impl Fn(i128, i128) -> Option<i128>,
    error: impl Fn() -> Error,
) -> Result<ArrayRef> {
    let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
    let array: Decimal128Array =
        arrow::compute::try_binary(left, right, |a, b| kernel(a, b).ok_or(ArrowError::DivideByZero))
            .map_err(|_| raise(error()))?;
    Ok(Arc::new(array.with_precision_and_scale(38, NUMERIC_SCALE)?))
}

pub fn power_of_ten(exponent: i32) -> Option<i256> {
    i256::from_i128(10).checked_pow(u32::try_from(exponent).ok()?)
}

/// Half away from zero, as `numeric` rounds.
pub fn divide_rounding(dividend: i256, divisor: i256) -> i256 {
    let quotient = dividend.wrapping_div(divisor);
    let rest = dividend.wrapping_rem(divisor);
    let twice = rest.wrapping_abs().wrapping_add(rest.wrapping_abs());
    match twice >= divisor.wrapping_abs() {
        false => quotient,
        true if (dividend < i256::ZERO) == (divisor < i256::ZERO) => quotient.wrapping_add(i256::ONE),
        true => quotient.wrapping_sub(i256::ONE),
    }
}
