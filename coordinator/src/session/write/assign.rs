//! Values on their way to columns, as PostgreSQL assigns them: what a literal or a parameter becomes, which types fit,
//! and the form in which a column keeps them.

use crate::session::define::column_type;
use crate::session::parse::fold;
use crate::session::query::{self, QueryPlan};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Expr, Query, Statement, Value as Literal};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use engine::types::{ColumnBuilder, TimeContext};
use engine::{ColumnDef, PgType, TableDef};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

/// # Errors
/// `42703` for a column the table does not have, `42701` for one named twice.
pub fn target_columns(table: &TableDef, names: Vec<String>) -> Result<Vec<ColumnDef>> {
    if names.is_empty() {
        return Ok(table.columns.clone());
    }
    let mut targets: Vec<ColumnDef> = Vec::with_capacity(names.len());
    for name in names {
        let column = table.column(&name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
            Error::new(SqlState::UNDEFINED_COLUMN, message)
        })?;
        if targets.iter().any(|target| target.id == column.id) {
            return Err(Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
        targets.push(column.clone());
    }
    Ok(targets)
}

/// A boolean is no number and a number no time; strings and NULL fit everywhere until they are read.
pub fn check_literal(expr: &Expr, target: &ColumnDef) -> Result<()> {
    let Expr::Value(value) = expr else { return Ok(()) };
    let is_text = matches!(target.ty, PgType::Text | PgType::Varchar(_) | PgType::Bpchar(_) | PgType::Name);
    let is_number = matches!(
        target.ty,
        PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Float4 | PgType::Float8 | PgType::Numeric(_) | PgType::Oid
    );
    let given = match &value.value {
        Literal::Boolean(_) if target.ty != PgType::Bool && !is_text => "boolean",
        Literal::Number(digits, _) if !is_number && !is_text => match digits.parse::<i32>() {
            Ok(_) => "integer",
            Err(_) => "numeric",
        },
        _ => return Ok(()),
    };
    Err(mismatch(target, given))
}

fn mismatch(target: &ColumnDef, given: &str) -> Error {
    let message = format!("column \"{}\" is of type {} but expression is of type {given}", target.name, target.ty);
    Error::new(SqlState::DATATYPE_MISMATCH, message).hint("You will need to rewrite or cast the expression.")
}

pub fn type_parameter(expr: &Expr, ty: &PgType, declared: &mut Vec<Option<PgType>>) {
    let (expr, ty) = match expr {
        Expr::Cast { expr, data_type, .. } => match column_type(data_type) {
            Ok(cast) => (&**expr, cast),
            Err(_) => return,
        },
        plain => (plain, ty.clone()),
    };
    query::declare(expr, ty, declared);
}

/// Text is no time and no number unless it is a literal: PostgreSQL has no assignment cast for it.
pub fn check_types(targets: &[ColumnDef], source: &QueryPlan) -> Result<()> {
    let is_text = |ty: &PgType| matches!(ty, PgType::Text | PgType::Varchar(_) | PgType::Bpchar(_) | PgType::Name);
    for (target, given) in targets.iter().zip(source.columns()) {
        let both_times = |ty: &PgType| matches!(ty, PgType::Timestamp | PgType::Timestamptz | PgType::Date);
        let fits = match (&target.ty, &given.ty) {
            (target, given) if is_text(target) || target == given => !matches!(given, PgType::Void),
            // A literal's type is still text here.
            (_, given) if is_text(given) => given == &PgType::Text,
            (target, given) if both_times(given) => both_times(target) || *target == PgType::Time,
            (PgType::Bool, _) | (_, PgType::Bool) => false,
            _ => true,
        };
        if !fits {
            return Err(mismatch(target, &given.ty.to_string()));
        }
    }
    Ok(())
}

/// The name under which a cast finds the type; array and modified types print as SQL reads them.
pub fn sql_type(ty: &PgType) -> String {
    match ty {
        // The length is checked afterwards: a cast would cut silently.
        PgType::Varchar(_) | PgType::Bpchar(_) => "text".to_owned(),
        other => other.to_string(),
    }
}

pub fn parsed_query(sql: &str) -> Result<Query> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| unreadable(sql, &error))?;
    match statements.pop() {
        Some(Statement::Query(query)) => Ok(*query),
        _ => Err(Error::internal("a SELECT reads back as a query")),
    }
}

pub fn parsed_expr(sql: &str) -> Result<Expr> {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql);
    parser.and_then(|mut parser| parser.parse_expr()).map_err(|error| unreadable(sql, &error))
}

fn unreadable(sql: &str, error: &ParserError) -> Error {
    Error::internal(format!("cannot read back {sql}: {error}"))
}

/// An SQL name that means exactly this.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The keyword DEFAULT in the place of a value.
pub fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && fold(ident) == "default")
}

/// A literal of unknown type, and DEFAULT, take the type of the column they go to.
pub fn type_literal(expr: &mut Expr, target: &ColumnDef) -> Result<()> {
    let is_default = is_default(expr);
    let is_unknown = matches!(expr, Expr::Value(value) if matches!(value.value,
        Literal::SingleQuotedString(_) | Literal::EscapedStringLiteral(_) | Literal::DollarQuotedString(_) | Literal::Null));
    let text = match (is_default, is_unknown) {
        (true, _) => format!("({})", target.default.as_deref().unwrap_or("NULL")),
        (_, true) => expr.to_string(),
        _ => return Ok(()),
    };
    *expr = parsed_expr(&format!("CAST({text} AS {})", sql_type(&target.ty)))?;
    Ok(())
}

/// Brings batches to the form in which a table's rows are stored.
pub struct Shape<'a> {
    table: &'a TableDef,
    context: TimeContext,
}

impl Shape<'_> {
    pub fn new(table: &TableDef, context: TimeContext) -> Shape<'_> {
        Shape { table, context }
    }

    /// The table's columns, all of which may be NULL: that is checked later.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.table.columns.iter().map(|column| column.field().with_nullable(true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// # Errors
    /// `22001`, `22P02`, … where a value does not fit its column.
    pub fn fit(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.table.columns.iter().zip(batch.columns());
        let columns = columns.map(|(column, array)| self.column(column, array)).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.schema(), columns).map_err(|error| Error::internal(error.to_string()))
    }

    fn column(&self, column: &ColumnDef, array: &ArrayRef) -> Result<ArrayRef> {
        let wanted = column.ty.arrow();
        let array = match array.data_type() == &wanted {
            true => array.clone(),
            false => cast(array, &wanted).map_err(|error| {
                Error::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!("column \"{}\" is of type {}: {error}", column.name, column.ty),
                )
            })?,
        };
        match column.ty {
            PgType::Varchar(Some(_)) | PgType::Bpchar(_) | PgType::Uuid | PgType::Json | PgType::Jsonb => {
                let mut builder = ColumnBuilder::new(&column.ty, self.context, array.len());
                for text in array.as_string::<i32>() {
                    match text {
                        Some(text) => builder.append_str(text)?,
                        None => builder.append_null(),
                    }
                }
                Ok(builder.finish())
            }
            _ => Ok(array),
        }
    }
}
