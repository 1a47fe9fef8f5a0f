//! One shape for all our scalar functions: a name, a rule that maps argument types to (coerced types, result type),
//! and a kernel over arrays. Functions keep no state, so that a data node finds them by name; what depends on the
//! session is read from the configuration that travels with the plan.

use crate::semantics::{SqlOptions, Zone};
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use proto::{Error, SqlState};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The argument types a call is coerced to, and its result type.
pub struct Overload {
    pub args: Vec<DataType>,
    pub result: DataType,
}

impl Overload {
    pub fn new(args: impl Into<Vec<DataType>>, result: DataType) -> Overload {
        Overload { args: args.into(), result }
    }
}

/// A call being evaluated.
pub struct Call<'a> {
    pub args: &'a [ColumnarValue],
    pub rows: usize,
    /// The arguments' fields, which may name a Postgres type.
    pub fields: &'a [FieldRef],
    pub result: &'a DataType,
    pub config: &'a ConfigOptions,
}

impl Call<'_> {
    /// Argument `index` as an array of `rows` values.
    pub fn array(&self, index: usize) -> Result<ArrayRef> {
        self.args[index].to_array(self.rows)
    }

    /// Argument `index` when it is one value for all rows.
    pub fn scalar(&self, index: usize) -> Option<&ScalarValue> {
        match self.args.get(index) {
            Some(ColumnarValue::Scalar(value)) => Some(value),
            _ => None,
        }
    }

    /// The session's zone.
    pub fn zone(&self) -> Result<Zone> {
        session_zone(self.config)
    }
}

/// The session's zone, from the configuration that travels with a plan.
pub fn session_zone(config: &ConfigOptions) -> Result<Zone> {
    match config.execution.time_zone.as_deref() {
        None => Ok(Zone::UTC),
        Some(name) => Zone::parse(name).map_err(raise),
    }
}

/// The transaction's `now()`.
pub fn session_now(config: &ConfigOptions) -> i64 {
    config.extensions.get::<SqlOptions>().map_or(0, |options| options.now_us.cast_signed())
}

type Resolve = fn(&[DataType]) -> Option<Overload>;
type Evaluate = fn(&Call) -> Result<ArrayRef>;

/// What a kernel's result says about order, given arguments in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    None,
    /// Rises with argument `n` while the others stay constant.
    Follows(usize),
}

type FieldOf = fn(&ReturnFieldArgs) -> Result<Option<FieldRef>>;
type Simplify = fn(&[Expr], &SimplifyContext) -> Result<Option<Expr>>;

#[derive(Debug)]
pub struct Function {
    name: &'static str,
    aliases: Vec<String>,
    /// Shown between the operands in EXPLAIN.
    operator: Option<&'static str>,
    signature: Signature,
    resolve: Resolve,
    evaluate: Evaluate,
    field: Option<FieldOf>,
    simplify: Option<Simplify>,
    order: Order,
}

impl Function {
    pub fn new(name: &'static str, resolve: Resolve, evaluate: Evaluate) -> Function {
        Function {
            name,
            aliases: Vec::new(),
            operator: None,
            signature: Signature::user_defined(Volatility::Immutable),
            resolve,
            evaluate,
            field: None,
            simplify: None,
            order: Order::None,
        }
    }

    pub fn alias(mut self, alias: &str) -> Function {
        self.aliases.push(alias.to_owned());
        self
    }

    pub fn operator(mut self, symbol: &'static str) -> Function {
        self.operator = Some(symbol);
        self
    }

    pub fn volatile(mut self) -> Function {
        self.signature = Signature::user_defined(Volatility::Volatile);
        self
    }

    /// Constant within a statement, but not for ever.
    pub fn stable(mut self) -> Function {
        self.signature = Signature::user_defined(Volatility::Stable);
        self
    }

    /// A result field that depends on argument values, or carries a Postgres type.
    pub fn field(mut self, field: fn(&ReturnFieldArgs) -> Result<Option<FieldRef>>) -> Function {
        self.field = Some(field);
        self
    }

    pub fn simplify(mut self, simplify: fn(&[Expr], &SimplifyContext) -> Result<Option<Expr>>) -> Function {
        self.simplify = Some(simplify);
        self
    }

    pub fn follows(mut self, argument: usize) -> Function {
        self.order = Order::Follows(argument);
        self
    }

    pub fn udf(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(self))
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let texts: Vec<String> = args.iter().map(ToString::to_string).collect();
        Ok(match (self.operator, texts.as_slice()) {
            (Some(symbol), [left, right]) => format!("({left} {symbol} {right})"),
            _ => format!("{}({})", self.name, texts.join(", ")),
        })
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match (self.resolve)(arg_types) {
            Some(overload) => Ok(overload.result),
            None => Err(raise(no_function(self.operator.unwrap_or(self.name), arg_types))),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(field) = self.field
            && let Some(field) = field(&args)?
        {
            return Ok(field);
        }
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(arrow::datatypes::Field::new(self.name, self.return_type(&types)?, true)))
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.resolve)(arg_types) {
            Some(overload) => Ok(overload.args),
            None => Err(raise(no_function(self.operator.unwrap_or(self.name), arg_types))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)))
            && self.signature.volatility != Volatility::Volatile;
        let rows = if constant { 1 } else { args.number_rows };
        let (fields, result) = (args.arg_fields.as_slice(), args.return_field.data_type());
        let call = Call { args: &args.args, rows, fields, result, config: &args.config_options };
        let array = (self.evaluate)(&call)?;
        assert!(array.len() == rows, "{}: one result per row", self.name);
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)),
            false => Ok(ColumnarValue::Array(array)),
        }
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match self.simplify {
            Some(simplify) => Ok(match simplify(&args, context)? {
                Some(expr) => ExprSimplifyResult::Simplified(expr),
                None => ExprSimplifyResult::Original(args),
            }),
            None => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let Order::Follows(argument) = self.order else {
            return Ok(SortProperties::Unordered);
        };
        let others_constant = inputs
            .iter()
            .enumerate()
            .all(|(index, input)| index == argument || input.sort_properties == SortProperties::Singleton);
        Ok(match (others_constant, inputs.get(argument)) {
            (true, Some(input)) => input.sort_properties,
            _ => SortProperties::Unordered,
        })
    }
}

/// An error of ours inside DataFusion; `to_error` brings it out unchanged.
pub fn raise(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// `function f(integer, text) does not exist`, or the operator's form of it.
pub fn no_function(name: &str, types: &[DataType]) -> Error {
    let names: Vec<String> = types.iter().map(type_name).collect();
    no_function_of(name, &names)
}

/// The same for types that are named already.
pub fn no_function_of(name: &str, names: &[String]) -> Error {
    if name.chars().any(|c| c.is_ascii_alphabetic()) {
        Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {name}({}) does not exist", names.join(", ")))
            .hint("No function matches the given name and argument types. You might need to add explicit type casts.")
    } else {
        let text = match names {
            [left, right] => format!("operator does not exist: {left} {name} {right}"),
            names => format!("operator does not exist: {name} {}", names.join(", ")),
        };
        Error::new(SqlState::UNDEFINED_FUNCTION, text)
            .hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
    }
}

/// A type as PostgreSQL names it in messages, without modifiers.
pub fn type_name(ty: &DataType) -> String {
    match crate::PgType::from_arrow(ty) {
        _ if ty.is_null() => "unknown".to_owned(),
        Some(crate::PgType::Numeric(_)) => "numeric".to_owned(),
        Some(crate::PgType::Array(element)) if matches!(*element, crate::PgType::Numeric(_)) => "numeric[]".to_owned(),
        Some(ty) => ty.to_string(),
        None => ty.to_string(),
    }
}

/// `expr` cast to `ty` unless it is of that type already.
pub fn cast_to(expr: Expr, from: &DataType, ty: &DataType) -> Expr {
    match from == ty {
        true => expr,
        false => cast(expr, ty.clone()),
    }
}
