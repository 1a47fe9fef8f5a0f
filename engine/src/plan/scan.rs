//! The leaf of a distributed plan: "rows of this table", not yet bound to chunks or to a store.
//!
//! On the coordinator it carries the chunks that survived exclusion, for the fragmenter; they do not travel in the
//! plan's bytes but in `FragmentRequest::scans`. On the node `bind` replaces it. It cannot be executed itself, unless no
//! chunk is left: then it has no rows.
//!
//! Invariant: its partitioning is unknown, never `Hash`. DataFusion would take our slots for its own hash.

use super::context::RelationName;
use super::error::hide;
use super::leading::Leading;
use crate::{ChunkDef, TableDef};
use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use proto::{ColumnId, ColumnPredicate, Error, Latest};
use std::fmt;
use std::sync::Arc;

/// Rows of a chunk and of a plain table as the planner guesses them: it need only know that a plain table beside a
/// hypertable is the one to build a join's hash table of.
const ROWS_PER_CHUNK: usize = 10_000_000;
const ROWS_PER_TABLE: usize = 1_000;

/// A column of the scan's output. Its field is the schema's at the same place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScannedColumn {
    pub id: ColumnId,
    /// As `ColumnDef::missing`, parsed: what rows written before the column existed hold.
    pub missing: datafusion::common::ScalarValue,
}

/// The coordinator's side of a scan.
#[derive(Debug, Clone)]
pub(super) struct ScanSource {
    pub table: Arc<TableDef>,
    pub chunks: Vec<Arc<ChunkDef>>,
    /// How many chunks the table has; the others were excluded.
    pub chunks_total: usize,
    /// As the statement names the table.
    pub relation: RelationName,
    /// What excluded them, and what the scan's predicates were made of.
    pub filters: Vec<Expr>,
}

#[derive(Debug, Clone)]
pub(super) struct ChunkScan {
    /// Its number in the plan.
    pub scan: u32,
    pub columns: Vec<ScannedColumn>,
    /// They travel beside the plan.
    pub predicates: Vec<ColumnPredicate>,
    /// No more rows than this are of use from each partition.
    pub limit: Option<usize>,
    /// Only the last rows are of use.
    pub latest: Option<Latest>,
    /// Only the first rows in time are of use.
    pub leading: Option<Leading>,
    /// `None` on a node.
    pub source: Option<ScanSource>,
    properties: Arc<PlanProperties>,
}

impl ChunkScan {
    pub fn new(
        scan: u32,
        schema: SchemaRef,
        columns: Vec<ScannedColumn>,
        predicates: Vec<ColumnPredicate>,
        limit: Option<usize>,
        partitions: usize,
        source: Option<ScanSource>,
    ) -> ChunkScan {
        assert_eq!(schema.fields().len(), columns.len(), "a field per column");
        let properties = Arc::new(scan_properties(schema, partitions));
        ChunkScan { scan, columns, predicates, limit, latest: None, leading: None, source, properties }
    }

    pub fn with_source(self, source: ScanSource, predicates: Vec<ColumnPredicate>) -> ChunkScan {
        ChunkScan { source: Some(source), predicates, ..self }
    }

    pub fn with_latest(self, latest: Option<Latest>) -> ChunkScan {
        ChunkScan { latest, ..self }
    }

    pub fn with_leading(self, leading: Option<Leading>) -> ChunkScan {
        ChunkScan { leading, ..self }
    }

    pub fn in_one_partition(self) -> ChunkScan {
        let properties = Arc::new(scan_properties(self.schema(), 1));
        ChunkScan { properties, ..self }
    }

    pub fn partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }

    pub fn fields(&self) -> impl Iterator<Item = Field> {
        let schema = self.schema();
        (0..schema.fields().len()).map(move |i| schema.field(i).clone())
    }
}

/// Of a scan of chunks, bound or not: rows in no order, in partitions that mean nothing.
pub(super) fn scan_properties(schema: SchemaRef, partitions: usize) -> PlanProperties {
    PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    )
}

impl DisplayAs for ChunkScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkScan: scan={}", self.scan)?;
        if let Some(source) = &self.source {
            write!(f, ", table={}, chunks={}/{}", source.table.name, source.chunks.len(), source.chunks_total)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for ChunkScan {
    fn name(&self) -> &str {
        "ChunkScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if let Some(source) = &self.source {
            let each = source.table.hypertable.as_ref().map_or(ROWS_PER_TABLE, |_| ROWS_PER_CHUNK);
            statistics.num_rows = Precision::Inexact(source.chunks.len() * each);
        }
        Ok(Arc::new(statistics))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(ChunkScan { limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if self.source.as_ref().is_some_and(|source| source.chunks.is_empty()) {
            return Ok(Box::pin(EmptyRecordBatchStream::new(self.schema())));
        }
        Err(hide(Error::internal(format!("scan {} was not bound to chunks", self.scan))))
    }
}
