//! Relations as DataFusion sees them. A table's chunks and a catalog view's rows are looked up when the plan is made
//! for execution, not when the statement is prepared, so a prepared statement sees chunks made since.

use super::bounds;
use super::context::{Relation, RelationName, Scope};
use super::error::hide;
use super::scan::{ChunkScan, ScanSource, ScannedColumn};
use crate::TableDef;
use arrow::datatypes::SchemaRef;
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
    schema: SchemaRef,
}

impl HypertableProvider {
    pub fn new(name: RelationName, table: Arc<TableDef>) -> HypertableProvider {
        let schema = table.schema();
        HypertableProvider { name, table, schema }
    }

    fn column(&self, index: usize) -> Result<ScannedColumn> {
        let column = &self.table.columns[index];
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
        let Some(Relation::Table { def, chunks }) = scope.relation(&self.name) else { return Err(changed()) };
        if def.id != self.table.id || def.columns != self.table.columns {
            return Err(changed());
        }
        let indices = projection.cloned().unwrap_or_else(|| (0..self.table.columns.len()).collect());
        let columns = indices.iter().map(|index| self.column(*index)).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(self.schema.project(&indices)?);
        let predicates = bounds::predicates(&def, filters);
        let surviving = bounds::surviving(&def, &chunks, &predicates);
        let source = ScanSource { table: def, chunks: surviving, chunks_total: chunks.len() };
        // At least two, so that DataFusion plans every exchange the fragmenter may have to cut at.
        let partitions = state.config().target_partitions().max(2);
        let scan = ChunkScan::new(scope.next_scan(), schema, columns, predicates, limit, partitions, Some(source));
        Ok(Arc::new(scan))
    }
}

/// A catalog view.
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
        let Some(Relation::Rows(rows)) = scope(state).relation(&self.name) else { return Err(changed()) };
        if rows.schema() != self.schema {
            return Err(changed());
        }
        let plan = MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema.clone(), projection.cloned())?;
        Ok(plan)
    }
}
