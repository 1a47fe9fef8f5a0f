//! Relations as DataFusion sees them. A table's chunks and a catalog view's rows are looked up when the plan is made
//! for execution, not when the statement is prepared, so a prepared statement sees chunks made since.

use super::bounds;
use super::context::{Relation, RelationName, Scope};
use super::error::hide;
use super::scan::{ChunkScan, ScanSource, ScannedColumn};
use super::target::{ADDRESS, address_fields};
use crate::TableDef;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use proto::{Error, SqlState};
use std::sync::Arc;

/// The error PostgreSQL gives when a prepared statement's relation changed shape under it.
fn changed() -> datafusion::error::DataFusionError {
    hide(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type"))
}

fn scope(state: &dyn Session) -> Arc<Scope> {
    state.config().get_extension::<Scope>().expect("the engine plans with its scope in the config")
}

#[derive(Debug)]
pub(super) struct HypertableProvider {
    name: RelationName,
    table: Arc<TableDef>,
    /// The table's columns; behind them the address, where rows are to be changed.
    schema: SchemaRef,
}

impl HypertableProvider {
    pub fn new(name: RelationName, table: Arc<TableDef>) -> HypertableProvider {
        let schema = table.schema();
        HypertableProvider { name, table, schema }
    }

    pub fn with_addresses(name: RelationName, table: Arc<TableDef>) -> HypertableProvider {
        let columns = table.columns.iter().map(crate::ColumnDef::field).chain(address_fields());
        let schema = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        HypertableProvider { name, table, schema }
    }

    fn column(&self, index: usize) -> Result<ScannedColumn> {
        let Some(column) = self.table.columns.get(index) else {
            let (_, id) = ADDRESS[index - self.table.columns.len()];
            return Ok(ScannedColumn { id, missing: ScalarValue::Int64(None) });
        };
        let ty = column.ty.arrow();
        let missing = match &column.missing {
            Some(text) => ScalarValue::try_from_string(text.clone(), &ty)?,
            None => ScalarValue::try_from(&ty)?,
        };
        Ok(ScannedColumn { id: column.id, missing })
    }
}

#[async_trait]
impl TableProvider for HypertableProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Bounds only skip chunks and blocks; the filter itself stays in the plan.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scope = scope(state);
        let (def, chunks) = match scope.relation(&self.name) {
            Some(Relation::Table { def, chunks } | Relation::Target { def, chunks, .. }) => (def, chunks),
            _ => return Err(changed()),
        };
        if def.id != self.table.id || def.columns != self.table.columns {
            return Err(changed());
        }
        let indices = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let columns = indices.iter().map(|index| self.column(*index)).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(self.schema.project(&indices)?);
        let predicates = bounds::predicates(&def, filters);
        let surviving = bounds::surviving(&def, &chunks, &predicates);
        let (relation, filters) = (self.name.clone(), filters.to_vec());
        let source = ScanSource { table: def, chunks: surviving, chunks_total: chunks.len(), relation, filters };
        // At least two, so that DataFusion plans every exchange the fragmenter may have to cut at.
        let partitions = state.config().target_partitions().max(2);
        let scan = ChunkScan::new(scope.next_scan(), schema, columns, predicates, limit, partitions, Some(source));
        Ok(Arc::new(scan))
    }
}

/// Rows the caller has: a catalog view, or what a statement brings along.
#[derive(Debug)]
pub(super) struct RowsProvider {
    name: RelationName,
    schema: SchemaRef,
}

impl RowsProvider {
    pub fn new(name: RelationName, schema: SchemaRef) -> RowsProvider {
        RowsProvider { name, schema }
    }
}

#[async_trait]
impl TableProvider for RowsProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (schema, rows) = match scope(state).relation(&self.name) {
            Some(Relation::Rows(rows)) => (rows.schema(), vec![rows]),
            Some(Relation::Changed { schema, batches, .. }) => (schema, batches.to_vec()),
            _ => return Err(changed()),
        };
        if schema != self.schema {
            return Err(changed());
        }
        let plan = MemorySourceConfig::try_new_exec(&[rows], self.schema.clone(), projection.cloned())?;
        Ok(plan)
    }
}
