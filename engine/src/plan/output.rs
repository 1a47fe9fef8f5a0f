//! What a query's rows look like to a client: names and types of its columns, and which of them are a table's own.

use super::context::Scope;
use super::error::reveal;
use crate::PgType;
use arrow::datatypes::{Field, FieldRef};
use datafusion::common::{Column, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use proto::data_node::FIELD_ID;
use proto::{ColumnId, Error, Result, TableId};

/// A column of a result, as a RowDescription needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputColumn {
    pub name: String,
    pub ty: PgType,
    /// The name its relation has in the statement; `None` for a computed column.
    pub relation: Option<String>,
    /// Set when the column is one of a table's, unchanged.
    pub table: Option<TableId>,
    pub column: Option<ColumnId>,
}

/// The schema after type coercion, which is the one the rows will have.
pub(super) fn output_columns(state: &SessionState, plan: &LogicalPlan, scope: &Scope) -> Result<Vec<OutputColumn>> {
    let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {});
    let analyzed = analyzed.map_err(reveal)?;
    let origins = origins(&analyzed, scope);
    let names = crate::semantics::output_columns(analyzed.schema().as_arrow());
    let fields = analyzed.schema().iter().zip(names).zip(origins);
    let output_column = |((qualified, name), origin): (((Option<&TableReference>, &FieldRef), String), _)| {
        let (relation, field) = qualified;
        let ty = PgType::from_field(field);
        let ty = ty.ok_or_else(|| Error::unsupported(format!("a result column of type {}", field.data_type())))?;
        let (table, column) = Option::unzip(origin);
        Ok(OutputColumn { name, ty, relation: relation.map(|relation| relation.table().to_owned()), table, column })
    };
    fields.map(output_column).collect()
}

/// For output columns that are a table's, which one. Only looks through the outermost projections; elsewhere a field
/// that still carries a column id was passed through unchanged, but its table is not told.
fn origins(plan: &LogicalPlan, scope: &Scope) -> Vec<Option<(TableId, ColumnId)>> {
    let tables: Vec<_> = scope.used().into_iter().filter_map(|(_, relation)| relation.table().cloned()).collect();
    let origin = |column: Column, field: &Field| {
        let id = ColumnId(field.metadata().get(FIELD_ID)?.parse().ok()?);
        let [table] = &tables[..] else { return None };
        let known = table.column_by_id(id)?;
        (known.name == column.name || column.relation.is_none()).then_some((table.id, id))
    };
    let columns = plan.schema().columns();
    columns.into_iter().zip(plan.schema().fields()).map(|(column, field)| origin(column, field)).collect()
}
