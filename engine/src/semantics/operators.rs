//! Operators, resolved as PostgreSQL resolves them: operand types decide, untyped literals and parameters take the
//! type of the other side, and an operator that PostgreSQL has not got is an error instead of a silent cast.

use super::rewrite::INTEGER_LITERAL;
use super::untyped::settled;
use crate::functions::call;
use crate::functions::scalar::{cast_to, no_function, raise, type_name};
use crate::functions::types::{Class, INTERVAL, NUMERIC, TIMESTAMP, as_decimal, class, timestamptz, wider_integer};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Placeholder, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawWindowExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use proto::{Error, SqlState};
use std::sync::Arc;

#[derive(Debug)]
pub struct PgOperators;

impl ExprPlanner for PgOperators {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if matches!(raw.op, BinaryOperator::And | BinaryOperator::Or) {
            let left = condition(raw.left, &raw.op, schema)?;
            let right = condition(raw.right, &raw.op, schema)?;
            return Ok(PlannerResult::Original(RawBinaryExpr { op: raw.op, left, right }));
        }
        let raw = RawBinaryExpr { op: raw.op, left: settled(raw.left, schema)?, right: settled(raw.right, schema)? };
        let (Ok(left_type), Ok(right_type)) = (operand_type(&raw.left, schema), operand_type(&raw.right, schema))
        else {
            return Ok(PlannerResult::Original(raw));
        };
        let pair = Pair { left: raw.left, right: raw.right, left_type, right_type };
        match plan(&raw.op, pair)? {
            Planned::Expr(expr) => Ok(PlannerResult::Planned(expr)),
            Planned::AsBefore(pair) => {
                Ok(PlannerResult::Original(RawBinaryExpr { op: raw.op, left: pair.left, right: pair.right }))
            }
        }
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(match integer_literal(&args) {
            Some(literal) => PlannerResult::Planned(literal),
            None => PlannerResult::Original(args),
        })
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(call("substr", args)))
    }

    /// PostgreSQL sorts what it has to tell apart, and these two show the order.
    fn plan_aggregate(&self, mut raw: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        if raw.distinct
            && raw.order_by.is_empty()
            && matches!(raw.func.name(), "array_agg" | "string_agg")
            && let Some(value) = raw.args.first()
        {
            raw.order_by.push(value.clone().sort(true, false));
        }
        Ok(PlannerResult::Original(raw))
    }

    fn plan_window(&self, raw: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        if raw.func_def.name() != "ntile" {
            return Ok(PlannerResult::Original(raw));
        }
        let params = WindowFunctionParams {
            args: raw.args,
            partition_by: raw.partition_by,
            order_by: raw.order_by,
            window_frame: raw.window_frame,
            filter: raw.filter,
            null_treatment: raw.null_treatment,
            distinct: raw.distinct,
        };
        let ntile = Expr::WindowFunction(Box::new(WindowFunction { fun: raw.func_def, params }));
        Ok(PlannerResult::Planned(cast(ntile, DataType::Int32)))
    }
}

/// Only a boolean, or an untyped literal that is one, may stand beside AND and OR.
fn condition(operand: Expr, op: &BinaryOperator, schema: &DFSchema) -> Result<Expr> {
    // The common case, without a walk through all that is below.
    if let Expr::BinaryExpr(BinaryExpr { op, .. }) = &operand
        && (op.is_logic_operator() || op.supports_propagation())
    {
        return Ok(operand);
    }
    if let Expr::Literal(ScalarValue::Utf8(_), _) = operand {
        return Ok(give_type(operand, &DataType::Boolean));
    }
    match operand_type(&operand, schema) {
        Ok(ty) if !matches!(class(&ty), Class::Bool | Class::Unknown | Class::Other) => {
            let message = format!("argument of {op} must be type boolean, not type {}", type_name(&ty));
            Err(raise(Error::new(SqlState::DATATYPE_MISMATCH, message)))
        }
        _ => Ok(operand),
    }
}

/// The literal behind the mark that `rewrite` put on a small whole number.
fn integer_literal(args: &[Expr]) -> Option<Expr> {
    match args {
        [Expr::Literal(ScalarValue::Utf8(Some(mark)), _), Expr::Literal(ScalarValue::Int64(Some(value)), _)]
            if mark == INTEGER_LITERAL =>
        {
            Some(Expr::Literal(ScalarValue::Int32(Some(i32::try_from(*value).ok()?)), None))
        }
        _ => None,
    }
}

struct Pair {
    left: Expr,
    right: Expr,
    left_type: DataType,
    right_type: DataType,
}

enum Planned {
    Expr(Expr),
    AsBefore(Pair),
}

/// `Null` stands for "unknown": an untyped literal or parameter.
fn operand_type(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    match expr {
        expr if is_unknown(expr) => Ok(DataType::Null),
        expr => expr.get_type(schema),
    }
}

/// A quoted literal, NULL, or a parameter whose type nobody gave yet.
pub fn is_unknown(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) => true,
        Expr::Placeholder(Placeholder { field, .. }) => field.is_none(),
        _ => false,
    }
}

/// Gives an unknown operand a type.
pub fn give_type(expr: Expr, ty: &DataType) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = arrow::datatypes::Field::new(&id, ty.clone(), true);
            Expr::Placeholder(Placeholder { id, field: Some(Arc::new(field)) })
        }
        Expr::Literal(ScalarValue::Utf8(_), _) if class(ty) == Class::Text => expr,
        other => cast(other, ty.clone()),
    }
}

impl Pair {
    fn classes(&self) -> (Class, Class) {
        (class(&self.left_type), class(&self.right_type))
    }

    fn error(&self, symbol: &str) -> datafusion::error::DataFusionError {
        raise(no_function(symbol, &[self.left_type.clone(), self.right_type.clone()]))
    }

    fn with_left(mut self, ty: DataType) -> Pair {
        self.left =
            if is_unknown(&self.left) { give_type(self.left, &ty) } else { cast_to(self.left, &self.left_type, &ty) };
        self.left_type = ty;
        self
    }

    fn with_right(mut self, ty: DataType) -> Pair {
        self.right = if is_unknown(&self.right) {
            give_type(self.right, &ty)
        } else {
            cast_to(self.right, &self.right_type, &ty)
        };
        self.right_type = ty;
        self
    }

    fn both(self, ty: DataType) -> Pair {
        self.with_left(ty.clone()).with_right(ty)
    }

    fn call(self, function: &str) -> Planned {
        Planned::Expr(call(function, vec![self.left, self.right]))
    }

    fn swapped_call(self, function: &str) -> Planned {
        Planned::Expr(call(function, vec![self.right, self.left]))
    }

    fn native(self, op: Operator) -> Planned {
        Planned::Expr(Expr::BinaryExpr(BinaryExpr::new(Box::new(self.left), op, Box::new(self.right))))
    }
}

fn plan(op: &BinaryOperator, pair: Pair) -> Result<Planned> {
    match op {
        BinaryOperator::Plus => plus(pair),
        BinaryOperator::Minus => minus(pair),
        BinaryOperator::Multiply => times(pair),
        BinaryOperator::Divide => divide(pair),
        BinaryOperator::Modulo => modulo(pair),
        BinaryOperator::PGExp => Ok(pair.call("power")),
        BinaryOperator::StringConcat => concat(pair),
        BinaryOperator::Eq => compare(pair, Operator::Eq),
        BinaryOperator::NotEq => compare(pair, Operator::NotEq),
        BinaryOperator::Lt => compare(pair, Operator::Lt),
        BinaryOperator::LtEq => compare(pair, Operator::LtEq),
        BinaryOperator::Gt => compare(pair, Operator::Gt),
        BinaryOperator::GtEq => compare(pair, Operator::GtEq),
        BinaryOperator::PGRegexMatch
        | BinaryOperator::PGRegexIMatch
        | BinaryOperator::PGRegexNotMatch
        | BinaryOperator::PGRegexNotIMatch => match pair.classes() {
            (Class::Text | Class::Unknown, Class::Text | Class::Unknown) => Ok(Planned::AsBefore(pair)),
            _ => Err(pair.error(&op.to_string())),
        },
        _ => Ok(Planned::AsBefore(pair)),
    }
}

/// Untyped operands of arithmetic: the other side's type, or an interval beside a time.
fn settle(pair: Pair, beside_time: &DataType) -> Pair {
    let counterpart = |ty: &DataType| match class(ty) {
        Class::Timestamp | Class::Timestamptz | Class::Time => beside_time.clone(),
        _ => ty.clone(),
    };
    match pair.classes() {
        (Class::Unknown, Class::Unknown) => pair,
        (Class::Unknown, _) => {
            let ty = counterpart(&pair.right_type);
            pair.with_left(ty)
        }
        (_, Class::Unknown) => {
            let ty = counterpart(&pair.left_type);
            pair.with_right(ty)
        }
        _ => pair,
    }
}

/// Arithmetic over numbers of any mix; `None` when an operand is no number.
#[expect(clippy::result_large_err, reason = "the pair is handed back as it came")]
fn numbers(pair: Pair, op: Operator) -> std::result::Result<Planned, Pair> {
    let (left, right) = pair.classes();
    let number = |class| matches!(class, Class::Integer | Class::Numeric | Class::Float);
    if !number(left) || !number(right) {
        return Err(pair);
    }
    if left == Class::Float || right == Class::Float {
        let both_single = pair.left_type == DataType::Float32 && pair.right_type == DataType::Float32;
        let pair = if both_single { pair } else { pair.both(DataType::Float64) };
        return Ok(match op {
            Operator::Plus => pair.call("float_add"),
            Operator::Minus => pair.call("float_sub"),
            Operator::Multiply => pair.call("float_mul"),
            Operator::Divide => pair.call("float_div"),
            op => pair.native(op),
        });
    }
    if left == Class::Numeric || right == Class::Numeric {
        let (left, right) = (as_decimal(&pair.left_type), as_decimal(&pair.right_type));
        let (DataType::Decimal128(left_digits, _), DataType::Decimal128(right_digits, _)) = (&left, &right) else {
            return Err(pair);
        };
        let digits = left_digits + right_digits;
        let pair = pair.with_left(left).with_right(right);
        return Ok(match op {
            Operator::Divide => pair.call("numeric_div"),
            Operator::Multiply if digits >= 38 => pair.call("numeric_mul"),
            op => pair.native(op),
        });
    }
    let ty = wider_integer(&pair.left_type, &pair.right_type);
    let pair = pair.both(ty);
    Ok(match op {
        Operator::Plus => pair.call("int_add"),
        Operator::Minus => pair.call("int_sub"),
        Operator::Multiply => pair.call("int_mul"),
        op => pair.native(op),
    })
}

fn plus(pair: Pair) -> Result<Planned> {
    if matches!(pair.classes(), (Class::Date, Class::Unknown) | (Class::Unknown, Class::Date)) {
        let (left, right) = (type_name(&pair.left_type), type_name(&pair.right_type));
        let error = Error::new(SqlState::new("42725"), format!("operator is not unique: {left} + {right}"));
        let hint = "Could not choose a best candidate operator. You might need to add explicit type casts.";
        return Err(raise(error.hint(hint)));
    }
    let pair = settle(pair, &INTERVAL);
    let pair = match numbers(pair, Operator::Plus) {
        Ok(planned) => return Ok(planned),
        Err(pair) => pair,
    };
    Ok(match pair.classes() {
        (Class::Timestamp | Class::Timestamptz, Class::Interval) => pair.call("time_add"),
        (Class::Interval, Class::Timestamp | Class::Timestamptz) => pair.swapped_call("time_add"),
        (Class::Date, Class::Interval) => pair.with_left(TIMESTAMP).call("time_add"),
        (Class::Interval, Class::Date) => pair.with_right(TIMESTAMP).swapped_call("time_add"),
        (Class::Date, Class::Integer) => pair.with_right(DataType::Int32).call("date_add_days"),
        (Class::Integer, Class::Date) => pair.with_left(DataType::Int32).swapped_call("date_add_days"),
        (Class::Date, Class::Time) => pair.call("date_add_time"),
        (Class::Time, Class::Date) => pair.swapped_call("date_add_time"),
        (Class::Time, Class::Interval) => pair.call("clock_add"),
        (Class::Interval, Class::Time) => pair.swapped_call("clock_add"),
        (Class::Interval, Class::Interval) => pair.native(Operator::Plus),
        (Class::Unknown, Class::Unknown) => Planned::AsBefore(pair),
        _ => return Err(pair.error("+")),
    })
}

fn minus(pair: Pair) -> Result<Planned> {
    let pair = match pair.classes() {
        (Class::Date, Class::Unknown) => pair.with_right(DataType::Date32),
        (Class::Unknown, Class::Timestamp | Class::Timestamptz) => {
            let ty = pair.right_type.clone();
            pair.with_left(ty)
        }
        (Class::Timestamp | Class::Timestamptz, Class::Unknown) => {
            let ty = unknown_beside_time(&pair);
            pair.with_right(ty)
        }
        _ => settle(pair, &INTERVAL),
    };
    let pair = match numbers(pair, Operator::Minus) {
        Ok(planned) => return Ok(planned),
        Err(pair) => pair,
    };
    Ok(match pair.classes() {
        (Class::Timestamp | Class::Timestamptz, Class::Interval) => pair.call("time_sub"),
        (Class::Date, Class::Interval) => pair.with_left(TIMESTAMP).call("time_sub"),
        (Class::Date, Class::Date) => pair.call("date_diff"),
        (Class::Time, Class::Interval) => pair.call("clock_sub"),
        (Class::Time, Class::Time) => pair.call("clock_diff"),
        (Class::Date, Class::Integer) => pair.with_right(DataType::Int32).call("date_sub_days"),
        (Class::Timestamp | Class::Timestamptz | Class::Date, Class::Timestamp | Class::Timestamptz | Class::Date) => {
            same_time_type(pair).call("time_diff")
        }
        (Class::Interval, Class::Interval) => pair.native(Operator::Minus),
        (Class::Unknown, Class::Unknown) => Planned::AsBefore(pair),
        _ => return Err(pair.error("-")),
    })
}

/// `ts - 'x'`: PostgreSQL takes the literal for the same type as the other side.
fn unknown_beside_time(pair: &Pair) -> DataType {
    pair.left_type.clone()
}

fn times(pair: Pair) -> Result<Planned> {
    let pair = match pair.classes() {
        (Class::Interval, Class::Unknown) => pair.with_right(DataType::Float64),
        (Class::Unknown, Class::Interval) => pair.with_left(DataType::Float64),
        _ => settle(pair, &INTERVAL),
    };
    let pair = match numbers(pair, Operator::Multiply) {
        Ok(planned) => return Ok(planned),
        Err(pair) => pair,
    };
    Ok(match pair.classes() {
        (Class::Interval, Class::Integer | Class::Float | Class::Numeric) => {
            pair.with_right(DataType::Float64).call("interval_mul")
        }
        (Class::Integer | Class::Float | Class::Numeric, Class::Interval) => {
            pair.with_left(DataType::Float64).swapped_call("interval_mul")
        }
        (Class::Unknown, Class::Unknown) => Planned::AsBefore(pair),
        _ => return Err(pair.error("*")),
    })
}

fn divide(pair: Pair) -> Result<Planned> {
    let pair = match pair.classes() {
        (Class::Interval, Class::Unknown) => pair.with_right(DataType::Float64),
        _ => settle(pair, &INTERVAL),
    };
    let pair = match numbers(pair, Operator::Divide) {
        Ok(planned) => return Ok(planned),
        Err(pair) => pair,
    };
    Ok(match pair.classes() {
        (Class::Interval, Class::Integer | Class::Float | Class::Numeric) => {
            pair.with_right(DataType::Float64).call("interval_div")
        }
        (Class::Unknown, Class::Unknown) => Planned::AsBefore(pair),
        _ => return Err(pair.error("/")),
    })
}

fn modulo(pair: Pair) -> Result<Planned> {
    let pair = settle(pair, &INTERVAL);
    match pair.classes() {
        (Class::Float, _) | (_, Class::Float) => Err(pair.error("%")),
        (Class::Unknown, Class::Unknown) => Ok(Planned::AsBefore(pair)),
        _ => numbers(pair, Operator::Modulo).map_err(|pair| pair.error("%")),
    }
}

fn concat(pair: Pair) -> Result<Planned> {
    match pair.classes() {
        (Class::List, _) | (_, Class::List) => Ok(Planned::AsBefore(pair)),
        (Class::Bytes, Class::Bytes | Class::Unknown) | (Class::Unknown, Class::Bytes) => {
            Ok(pair.both(DataType::Binary).call("bytea_concat"))
        }
        (Class::Text | Class::Unknown, _) | (_, Class::Text | Class::Unknown) => {
            Ok(pair.both(DataType::Utf8).native(Operator::StringConcat))
        }
        _ => Err(pair.error("||")),
    }
}

/// Two times of different types meet in the richer one.
fn same_time_type(pair: Pair) -> Pair {
    match pair.classes() {
        (Class::Timestamptz, _) | (_, Class::Timestamptz) => pair.both(timestamptz()),
        _ => pair.both(TIMESTAMP),
    }
}

fn compare(pair: Pair, op: Operator) -> Result<Planned> {
    let pair = match pair.classes() {
        (Class::Unknown, Class::Unknown) => return Ok(Planned::AsBefore(pair)),
        (Class::Unknown, _) => {
            let ty = pair.right_type.clone();
            pair.with_left(comparable(&ty))
        }
        (_, Class::Unknown) => {
            let ty = pair.left_type.clone();
            pair.with_right(comparable(&ty))
        }
        _ => pair,
    };
    let number = |class| matches!(class, Class::Integer | Class::Numeric | Class::Float);
    let time = |class| matches!(class, Class::Date | Class::Timestamp | Class::Timestamptz);
    let (left, right) = pair.classes();
    Ok(match (left, right) {
        (Class::Interval, Class::Interval) => {
            let key = |expr| call("interval_key", vec![expr]);
            Planned::Expr(Expr::BinaryExpr(BinaryExpr::new(Box::new(key(pair.left)), op, Box::new(key(pair.right)))))
        }
        (Class::Float, Class::Integer | Class::Numeric) | (Class::Integer | Class::Numeric, Class::Float) => {
            pair.both(DataType::Float64).native(op)
        }
        (left, right) if left == right => pair.native(op),
        (left, right) if number(left) && number(right) => pair.native(op),
        (left, right) if time(left) && time(right) => same_time_type(pair).native(op),
        (Class::Other, _) | (_, Class::Other) => Planned::AsBefore(pair),
        _ => return Err(pair.error(&op.to_string().replace("!=", "<>"))),
    })
}

/// An untyped literal beside a decimal is any `numeric`, not one of that very scale.
fn comparable(ty: &DataType) -> DataType {
    match class(ty) {
        Class::Numeric => NUMERIC,
        _ => ty.clone(),
    }
}
