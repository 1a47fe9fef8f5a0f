//! Number literals. DataFusion reads every whole number as `bigint`; PostgreSQL takes `integer` where it fits, and the
//! difference shows in the type of every expression above. DataFusion has no hook for literals, but one for EXTRACT, which
//! is free (real EXTRACTs have become function calls): a small whole number travels as `EXTRACT(int4_literal FROM 5)` and
//! `operators` makes it a literal again.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, DateTimeField, Distinct, ExactNumberInfo, Expr, ExtractSyntax, Function, GroupByExpr, Ident,
    Interval, LimitClause, OrderByKind, Query, Select, UnaryOperator, Value, ValueWithSpan, WindowFrameBound,
    WindowType,
};

/// The field name that marks an integer literal.
pub const MARK: &str = "int4_literal";

/// Digits that a decimal can hold.
const DIGITS_MAX: usize = 38;

/// Marks a whole number, negative or not, and spells out exponents.
pub fn expression(expr: &mut Expr) {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            if digits.parse::<i32>().is_ok() {
                mark(expr);
            } else if digits.parse::<i64>().is_err() && digits.parse::<u64>().is_ok() {
                *expr = whole_numeric(digits);
            } else if digits.contains(['e', 'E']) {
                *expr = without_exponent(digits);
            }
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } if is_marked(inner) => {
            unmark(inner);
            mark(expr);
        }
        // -9223372036854775808 is a bigint, although it is not without the sign.
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => {
            if let Expr::Cast { expr: number, data_type: DataType::Numeric(_), .. } = inner.as_mut()
                && let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(digits), .. }) = number.as_ref()
                && digits == "9223372036854775808"
            {
                **inner = Expr::Value(ValueWithSpan::from(Value::Number(digits.clone(), false)));
            }
        }
        Expr::Function(function) => frames(function),
        _ => {}
    }
}

/// `1e39::real` reads the digits as a `real`: no numeric here holds all that a literal can say.
pub fn cast_digits(expr: &mut Expr) {
    if let Expr::Cast { expr: inner, data_type, .. } = expr
        && matches!(data_type, DataType::Real | DataType::Float4 | DataType::Float8 | DataType::DoublePrecision)
        && let Expr::Value(ValueWithSpan { value, .. }) = inner.as_mut()
        && let Value::Number(digits, _) = value
        && digits.contains(['e', 'E'])
        && let Some(plain) = plain_digits(digits)
    {
        *value = Value::SingleQuotedString(plain.strip_suffix(".0").unwrap_or(&plain).to_owned());
    }
}

/// Places where a bare number is a position or a count and not a value.
pub fn query(query: &mut Query) {
    if let Some(order_by) = &mut query.order_by
        && let OrderByKind::Expressions(items) = &mut order_by.kind
    {
        items.iter_mut().for_each(|item| unmark(&mut item.expr));
    }
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            limit.iter_mut().for_each(unmark);
            offset.iter_mut().for_each(|offset| unmark(&mut offset.value));
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
            unmark(offset);
            unmark(limit);
        }
        None => {}
    }
    if let Some(fetch) = &mut query.fetch {
        fetch.quantity.iter_mut().for_each(unmark);
    }
}

/// As [`query`], for what belongs to a SELECT.
pub fn select(select: &mut Select) {
    if let GroupByExpr::Expressions(items, _) = &mut select.group_by {
        items.iter_mut().for_each(unmark);
    }
    if let Some(Distinct::On(items)) = &mut select.distinct {
        items.iter_mut().for_each(unmark);
    }
}

fn frames(function: &mut Function) {
    let Some(WindowType::WindowSpec(window)) = &mut function.over else { return };
    let Some(frame) = &mut window.window_frame else { return };
    for bound in std::iter::once(&mut frame.start_bound).chain(&mut frame.end_bound) {
        if let WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) = bound {
            unmark(expr);
            interval_bound(expr);
        }
    }
}

/// A bound that became a cast is INTERVAL syntax again, the only form that the planner reads here.
fn interval_bound(bound: &mut Expr) {
    if let Expr::Cast { expr: text, data_type: DataType::Interval { .. }, .. } = bound {
        *bound = Expr::Interval(Interval {
            value: std::mem::replace(text, Box::new(Expr::Value(ValueWithSpan::from(Value::Null)))),
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        });
    }
}

fn is_marked(expr: &Expr) -> bool {
    matches!(expr, Expr::Extract { field: DateTimeField::Custom(name), .. } if name.value == MARK)
}

fn mark(expr: &mut Expr) {
    let number = std::mem::replace(expr, Expr::Value(ValueWithSpan::from(Value::Null)));
    let field = DateTimeField::Custom(Ident::new(MARK));
    *expr = Expr::Extract { field, syntax: ExtractSyntax::From, expr: Box::new(number) };
}

fn unmark(expr: &mut Expr) {
    if is_marked(expr)
        && let Expr::Extract { expr: number, .. } = expr
    {
        *expr = std::mem::replace(number, Expr::Value(ValueWithSpan::from(Value::Null)));
    }
}

/// Beyond `bigint`, where DataFusion would still find an unsigned integer.
fn whole_numeric(digits: &str) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(ValueWithSpan::from(Value::SingleQuotedString(digits.to_owned())))),
        data_type: DataType::Numeric(ExactNumberInfo::PrecisionAndScale(digits.len() as u64, 0)),
        array: false,
        format: None,
    }
}

/// `1.5e3` is the numeric 1500; what no numeric here can hold is double precision.
fn without_exponent(text: &str) -> Expr {
    let plain = plain_digits(text).filter(|digits| digits.bytes().filter(u8::is_ascii_digit).count() <= DIGITS_MAX);
    match plain {
        Some(digits) => Expr::Value(ValueWithSpan::from(Value::Number(digits, false))),
        None => Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(Expr::Value(ValueWithSpan::from(Value::SingleQuotedString(text.to_owned())))),
            data_type: DataType::Double(ExactNumberInfo::None),
            array: false,
            format: None,
        },
    }
}

/// With a point, so that it stays a numeric.
fn plain_digits(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
    if point.unsigned_abs() as usize > 2 * DIGITS_MAX {
        return None;
    }
    Some(match usize::try_from(point) {
        Err(_) | Ok(0) => format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
        Ok(point) if point >= digits.len() => format!("{digits}{}.0", "0".repeat(point - digits.len())),
        Ok(point) => format!("{}.{}", &digits[..point], &digits[point..]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_spelled_out() {
        let spelled = ["1e3", "1.5e2", "1.25E1", "1e-3", "12e-1"].map(|text| plain_digits(text).unwrap());
        assert_eq!(spelled, ["1000.0", "150.0", "12.5", "0.001", "1.2"]);
        assert!(matches!(without_exponent("1e300"), Expr::Cast { .. }));
    }
}
