//! RETURNING: a query over the rows that were changed, as they are now stored (or were, for DELETE), beside the columns
//! of FROM and USING.

use super::assign::parsed_query;
use super::target::Target;
use crate::pg::backend::{OutputColumn, RowStream};
use crate::session::Session;
use crate::session::query::{self, QueryPlan};
use crate::session::relations::Own;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{Expr, SelectItem, SetExpr, Statement, visit_expressions};
use engine::plan::Relation;
use engine::plan::target::{CHANGED, changed_column};
use engine::{PgType, TableDef};
use proto::{Error, Result, SqlState};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A column of a relation in FROM or USING.
#[derive(Debug, Clone)]
pub struct FromColumn {
    pub relation: Option<String>,
    pub name: String,
    pub ty: PgType,
}

pub struct Returning {
    query: QueryPlan,
    table: Arc<TableDef>,
    schema: SchemaRef,
}

impl Returning {
    /// # Errors
    /// What PostgreSQL reports for a select list, and 0A000 for sub-queries.
    pub async fn prepare(
        session: &mut Session,
        items: &[SelectItem],
        target: &Target,
        from: &[FromColumn],
        declared: &[Option<PgType>],
    ) -> Result<Returning> {
        check_items(items)?;
        let own = target.table.columns.iter().map(|column| {
            let name = changed_column(&target.alias, &column.name);
            column.field().with_name(name).with_nullable(true)
        });
        let others = from.iter().map(|column| {
            let relation = column.relation.as_deref().unwrap_or_default();
            column.ty.field(&changed_column(relation, &column.name), true)
        });
        let schema = Arc::new(Schema::new(own.chain(others).collect::<Vec<_>>()));
        let mut statement = parsed_query(&format!("SELECT 1 FROM {}", super::assign::quoted(CHANGED)))?;
        if let SetExpr::Select(select) = &mut *statement.body {
            select.projection = items.to_vec();
        }
        let own = changed(&target.table, &schema, Vec::new());
        let statement = Statement::Query(Box::new(statement));
        let query = query::prepare_with(session, &statement, declared, &own).await?;
        Ok(Returning { query, table: target.table.clone(), schema })
    }

    pub fn params(&self) -> Vec<PgType> {
        self.query.params()
    }

    pub fn columns(&self) -> Vec<OutputColumn> {
        self.query.columns()
    }

    /// `batches` have the table's columns, then those of FROM.
    pub async fn rows(
        &self,
        session: &mut Session,
        params: &[ScalarValue],
        batches: Vec<RecordBatch>,
    ) -> Result<RowStream> {
        let under_schema = |batch: RecordBatch| {
            // A computed column of FROM may have another width than its SQL type is kept in.
            let column = |(array, field): (&ArrayRef, &FieldRef)| cast(array, field.data_type());
            let columns = batch.columns().iter().zip(self.schema.fields()).map(column).collect::<Result<Vec<_>, _>>();
            let batch = columns.and_then(|columns| RecordBatch::try_new(self.schema.clone(), columns));
            batch.map_err(|error| Error::internal(error.to_string()))
        };
        let batches = batches.into_iter().map(under_schema).collect::<Result<Vec<_>>>()?;
        let own = changed(&self.table, &self.schema, batches);
        let (_, stream) = query::rows_with(session, &self.query, params, &own).await?;
        Ok(stream)
    }
}

fn changed(table: &Arc<TableDef>, schema: &SchemaRef, batches: Vec<RecordBatch>) -> Own {
    let (def, schema) = (table.clone(), schema.clone());
    vec![((None, CHANGED.to_owned()), Relation::Changed { def, schema, batches: Arc::new(batches) })]
}

fn check_items(items: &[SelectItem]) -> Result<()> {
    const AGGREGATES: [&str; 8] = ["count", "sum", "avg", "min", "max", "array_agg", "string_agg", "bool_and"];
    let items = items.to_vec();
    let check = |expr: &Expr| match expr {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
            ControlFlow::Break(Error::unsupported("a sub-query in RETURNING"))
        }
        Expr::Function(function) if function.over.is_some() => {
            ControlFlow::Break(Error::new(SqlState::new("42P20"), "window functions are not allowed in RETURNING"))
        }
        Expr::Function(function) if AGGREGATES.contains(&function.name.to_string().to_lowercase().as_str()) => {
            let text = "aggregate functions are not allowed in RETURNING";
            ControlFlow::Break(Error::new(SqlState::GROUPING_ERROR, text))
        }
        _ => ControlFlow::Continue(()),
    };
    match visit_expressions(&items, check) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}
