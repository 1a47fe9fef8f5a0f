//! INSERT … VALUES of nothing but constants and parameters: its cells go straight into columns, without a query.
//!
//! What it takes must come out as the query would bring it; whatever is in doubt it leaves to the query, above all every
//! number that does not fit its column, so that errors are worded in one place.
//!
//! Taken: quoted literals, NULL, DEFAULT, numbers for columns of numbers (and whole ones for text), booleans for
//! booleans, `now()` for `timestamptz`, parameters; each of these also behind a cast to the column's own type.

use super::assign::{is_default, parsed_expr};
use crate::session::define::column_type;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArguments, Insert, ObjectNamePart, Query, SetExpr, UnaryOperator,
    Value as Literal,
};
use engine::semantics::assigned;
use engine::types::{ColumnBuilder, DecimalLimits, TimeContext, parse_decimal, parse_float4, parse_float8};
use engine::{ColumnDef, PgType, TableDef};
use proto::{Error, Result};

/// How the rows of one statement become rows of its table.
pub struct Constants {
    params: Vec<PgType>,
    columns: Vec<Source>,
    /// Columns in the order in which their values are read: the statement's, then the table's.
    order: Vec<usize>,
}

/// Where a column of the table gets its values from.
struct Source {
    /// In the statement's rows; `None` when it does not name the column.
    position: Option<usize>,
    /// What DEFAULT means, where it is needed.
    default: Option<Expr>,
}

/// What one place in VALUES says, as far as it can be said before the parameters are known.
enum Cell<'a> {
    Null,
    Default,
    /// To be read as a value of the column's type.
    Text(&'a str),
    /// Of the column's type.
    Value(ScalarValue),
    Now,
    /// From 0.
    Param(usize),
}

impl Constants {
    /// `None`: it takes a query. `targets` are the columns that the rows fill, `declared` the types of the parameters
    /// as far as the columns and the client decide them.
    pub fn of(
        insert: &Insert,
        table: &TableDef,
        targets: &[ColumnDef],
        declared: &[Option<PgType>],
    ) -> Option<Constants> {
        let params = declared.iter().cloned().collect::<Option<Vec<_>>>()?;
        let mut columns = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            let position = targets.iter().position(|target| target.id == column.id);
            columns.push(source(column, position, insert, &params)?);
        }
        let mut order = (0..columns.len()).collect::<Vec<_>>();
        order.sort_by_key(|place| columns[*place].position.unwrap_or(usize::MAX));
        Some(Constants { params, columns, order })
    }

    pub fn params(&self) -> &[PgType] {
        &self.params
    }

    /// Adds the statement's rows. `params` has a value for each of [`Constants::params`].
    ///
    /// # Errors
    /// Of the first value that does not fit its column. Rows before the one at fault are then there, and can be taken.
    pub fn append(&self, insert: &Insert, table: &TableDef, params: &[ScalarValue], into: &mut Rows) -> Result<()> {
        let rows = rows(insert).ok_or_else(|| Error::internal("an INSERT of constants has other rows than before"))?;
        for row in rows {
            for &place in &self.order {
                let (source, column) = (&self.columns[place], &table.columns[place]);
                let expr = source.position.map_or(Some(Cell::Default), |position| cell(&row[position], &column.ty));
                let value = match expr {
                    Some(Cell::Default) => match &source.default {
                        Some(default) => cell(default, &column.ty),
                        None => Some(Cell::Null),
                    },
                    other => other,
                };
                let value = value.ok_or_else(|| Error::internal("a constant that was none before"))?;
                into.append_cell(place, &column.ty, &value, params)?;
            }
            into.count += 1;
        }
        Ok(())
    }
}

/// How many rows the statement has, before they are looked at.
pub fn rows_count(insert: &Insert) -> usize {
    rows(insert).map_or(0, |rows| rows.len())
}

/// The rows of VALUES; `DEFAULT VALUES` is one without cells. `None` when the source is anything else.
fn rows(insert: &Insert) -> Option<impl ExactSizeIterator<Item = &[Expr]>> {
    const NO_CELLS: &[Expr] = &[];
    let values = match insert.source.as_deref() {
        None => None,
        Some(query) => match &*query.body {
            SetExpr::Values(values) if is_bare(query) && !values.rows.is_empty() => Some(&values.rows),
            _ => return None,
        },
    };
    let count = values.map_or(1, Vec::len);
    Some((0..count).map(move |n| values.map_or(NO_CELLS, |rows| &rows[n].content)))
}

/// Nothing but its body.
fn is_bare(query: &Query) -> bool {
    let Query {
        with,
        body: _,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    with.is_none()
        && order_by.is_none()
        && limit_clause.is_none()
        && fetch.is_none()
        && locks.is_empty()
        && for_clause.is_none()
        && settings.is_none()
        && format_clause.is_none()
        && pipe_operators.is_empty()
}

fn source(column: &ColumnDef, position: Option<usize>, insert: &Insert, params: &[PgType]) -> Option<Source> {
    if !is_taken(&column.ty) {
        return None;
    }
    let is_single = rows(insert)?.len() == 1;
    let mut uses_default = position.is_none();
    if let Some(position) = position {
        for row in rows(insert)? {
            match cell(row.get(position)?, &column.ty)? {
                Cell::Param(number) if !takes_param(&column.ty, params.get(number)?, is_single) => return None,
                Cell::Default => uses_default = true,
                _ => {}
            }
        }
    }
    let default = match &column.default {
        Some(default) if uses_default => {
            let default = parsed_expr(default).ok()?;
            match cell(&default, &column.ty)? {
                Cell::Null | Cell::Text(_) | Cell::Value(_) | Cell::Now => Some(default),
                Cell::Default | Cell::Param(_) => return None,
            }
        }
        _ => None,
    };
    Some(Source { position, default })
}

/// Types whose text is read the same way wherever it stands.
fn is_taken(ty: &PgType) -> bool {
    match ty {
        PgType::Array(element) => is_taken(element),
        PgType::Bool | PgType::Bytea | PgType::Uuid | PgType::Json | PgType::Jsonb => true,
        PgType::Date | PgType::Time | PgType::Timestamp | PgType::Timestamptz | PgType::Interval => true,
        ty => is_number(ty) || is_string(ty),
    }
}

fn is_integer(ty: &PgType) -> bool {
    matches!(ty, PgType::Int2 | PgType::Int4 | PgType::Int8)
}

fn is_number(ty: &PgType) -> bool {
    is_integer(ty) || matches!(ty, PgType::Float4 | PgType::Float8 | PgType::Numeric(_))
}

fn is_string(ty: &PgType) -> bool {
    matches!(ty, PgType::Text | PgType::Varchar(_) | PgType::Bpchar(_))
}

/// Whether a parameter's value can be brought to the column alone: in a query, rows of VALUES agree on one type first.
fn takes_param(column: &PgType, param: &PgType, is_single: bool) -> bool {
    let is_float = |ty: &PgType| matches!(ty, PgType::Float4 | PgType::Float8);
    match (param, column) {
        (param, column) if param == column => true,
        (PgType::Text | PgType::Varchar(_), column) => is_string(column),
        (param, column) if is_integer(param) => is_number(column),
        (param, column) if is_float(param) => is_single && is_number(column),
        (PgType::Timestamp | PgType::Date, PgType::Timestamp | PgType::Timestamptz) => is_single,
        _ => false,
    }
}

/// What stands in a place of a column of this type; `None` when only a query can tell.
fn cell<'a>(expr: &'a Expr, ty: &PgType) -> Option<Cell<'a>> {
    match expr {
        Expr::Value(value) => match &value.value {
            Literal::Null => Some(Cell::Null),
            Literal::Boolean(value) if *ty == PgType::Bool => Some(Cell::Value(ScalarValue::from(*value))),
            Literal::Number(digits, false) => number(digits, false, ty),
            Literal::Placeholder(id) => param(id),
            literal => text(literal),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match &**expr {
            Expr::Value(value) => match &value.value {
                Literal::Number(digits, false) => number(digits, true, ty),
                _ => None,
            },
            _ => None,
        },
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, array: false, format: None } => {
            match (&**expr, is_own_type(data_type, ty)) {
                (Expr::Value(_), true) => cell(expr, ty),
                _ => None,
            }
        }
        Expr::TypedString(typed) if !typed.uses_odbc_syntax && is_own_type(&typed.data_type, ty) => {
            text(&typed.value.value)
        }
        Expr::Interval(interval) if *ty == PgType::Interval && interval.leading_field.is_none() => {
            match &*interval.value {
                Expr::Value(value) => text(&value.value),
                _ => None,
            }
        }
        Expr::Function(call) => (*ty == PgType::Timestamptz && is_now(call)).then_some(Cell::Now),
        expr => is_default(expr).then_some(Cell::Default),
    }
}

fn text(literal: &Literal) -> Option<Cell<'_>> {
    match literal {
        Literal::SingleQuotedString(text) | Literal::EscapedStringLiteral(text) => Some(Cell::Text(text)),
        Literal::DollarQuotedString(text) => Some(Cell::Text(&text.value)),
        _ => None,
    }
}

/// A cast to another type may change the value on its way, and one to `varchar(n)` cuts it.
fn is_own_type(ast: &DataType, ty: &PgType) -> bool {
    let has_length = ast.to_string().contains('(') && !matches!(ty, PgType::Numeric(_));
    !has_length && !matches!(ty, PgType::Varchar(_) | PgType::Bpchar(_)) && column_type(ast).is_ok_and(|of| of == *ty)
}

fn is_now(call: &Function) -> bool {
    let [ObjectNamePart::Identifier(name)] = &call.name.0[..] else { return false };
    let has_no_args = match &call.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty() && list.clauses.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    let is_call = matches!(call.args, FunctionArguments::List(_));
    let is_named = match name.value.to_ascii_lowercase().as_str() {
        "now" | "transaction_timestamp" => is_call,
        "current_timestamp" => !is_call,
        _ => false,
    };
    let is_plain = call.filter.is_none() && call.over.is_none() && call.within_group.is_empty();
    is_named && has_no_args && is_plain && name.quote_style.is_none()
}

fn param(id: &str) -> Option<Cell<'static>> {
    let number = id.strip_prefix('$')?.parse::<usize>().ok()?;
    number.checked_sub(1).map(Cell::Param)
}

/// A number that fits the column as it stands. A fraction for an integer is left to the query, which rounds it.
fn number<'a>(digits: &'a str, is_negative: bool, ty: &PgType) -> Option<Cell<'a>> {
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte)) {
        return None;
    }
    if matches!(ty, PgType::Text | PgType::Varchar(_) | PgType::Bpchar(_)) {
        let is_shortest = is_whole && digits.parse::<i64>().is_ok() && (digits == "0" || !digits.starts_with('0'));
        return (is_shortest && !is_negative).then_some(Cell::Text(digits));
    }
    let signed = if is_negative { &format!("-{digits}") } else { digits };
    let value = match ty {
        PgType::Int2 if is_whole => ScalarValue::from(signed.parse::<i16>().ok()?),
        PgType::Int4 if is_whole => ScalarValue::from(signed.parse::<i32>().ok()?),
        PgType::Int8 if is_whole => ScalarValue::from(signed.parse::<i64>().ok()?),
        // The literal is a numeric, which has no negative zero.
        PgType::Float4 => ScalarValue::from(parse_float4(signed).ok()? + 0.0),
        PgType::Float8 => ScalarValue::from(parse_float8(signed).ok()? + 0.0),
        PgType::Numeric(declared) => {
            let ArrowType::Decimal128(precision, scale) = ty.arrow() else { return None };
            let limits = DecimalLimits { precision, scale, declared: declared.is_some() };
            ScalarValue::Decimal128(Some(parse_decimal(signed, limits).ok()?), precision, scale)
        }
        _ => return None,
    };
    Some(Cell::Value(value))
}

/// Rows of one table while they come in.
pub struct Rows {
    context: TimeContext,
    columns: Vec<ColumnBuilder>,
    count: usize,
    /// What the texts among them take, about.
    text_bytes: usize,
    /// Which columns of the last row are NULL.
    nulls: Vec<bool>,
}

impl Rows {
    /// Room is made for `capacity` rows.
    pub fn new(table: &TableDef, context: TimeContext, capacity: usize) -> Rows {
        let builder = |column: &ColumnDef| ColumnBuilder::new(&column.ty, context, capacity);
        Rows {
            context,
            columns: table.columns.iter().map(builder).collect(),
            count: 0,
            text_bytes: 0,
            nulls: vec![false; table.columns.len()],
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// The last row is not wanted. Nothing can be added then; the others can be taken.
    pub fn retract(&mut self) {
        self.count -= 1;
    }

    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// Whether the last row has NULL in the column at this place.
    pub fn is_null(&self, place: usize) -> bool {
        self.nulls[place]
    }

    fn append_cell(&mut self, place: usize, ty: &PgType, cell: &Cell<'_>, params: &[ScalarValue]) -> Result<()> {
        let builder = &mut self.columns[place];
        let is_null = match cell {
            Cell::Null | Cell::Default => {
                builder.append_null();
                true
            }
            Cell::Text(text) => {
                self.text_bytes += text.len();
                builder.append_text(text.as_bytes())?;
                false
            }
            Cell::Value(value) => {
                builder.append_scalar(value)?;
                false
            }
            Cell::Now => {
                let now = ScalarValue::TimestampMicrosecond(Some(self.context.now_us), Some("UTC".into()));
                builder.append_scalar(&now)?;
                false
            }
            Cell::Param(number) => {
                let value = params.get(*number).ok_or_else(|| Error::internal("a parameter without a value"))?;
                self.text_bytes += bytes_of(value);
                match value.data_type() == ty.arrow() {
                    true => builder.append_scalar(value)?,
                    false => builder.append_scalar(&assigned(value, ty, &self.context)?)?,
                }
                value.is_null()
            }
        };
        self.nulls[place] = is_null;
        Ok(())
    }

    /// All whole rows, under the schema of [`super::Shape`]; none are left.
    pub fn take(&mut self, schema: SchemaRef) -> Result<RecordBatch> {
        let count = std::mem::take(&mut self.count);
        self.text_bytes = 0;
        // The columns before a value that did not fit are longer by it.
        let columns = self.columns.iter_mut().map(|column| column.finish().slice(0, count)).collect();
        RecordBatch::try_new(schema, columns).map_err(|error| Error::internal(error.to_string()))
    }
}

fn bytes_of(value: &ScalarValue) -> usize {
    match value {
        ScalarValue::Utf8(Some(text)) => text.len(),
        ScalarValue::Binary(Some(bytes)) => bytes.len(),
        ScalarValue::List(list) => list.value(0).get_array_memory_size(),
        _ => 0,
    }
}
