//! A fragment's plan as bytes. DataFusion encodes its own operators; this file adds our leaves and `GapFillExec`, told
//! apart by whether they have an input, and `Slot`. Functions travel by name: every process of a cluster runs the same
//! build.
//!
//! A leaf on the wire: `u32` length (little-endian) of a JSON header, the header, then an Arrow IPC body with one
//! row, whose fields are the leaf's (made nullable) and whose values are the columns' `missing` values for `ChunkScan`, NULL
//! for `ShuffledRows`.
//! `GapFillExec` on the wire: its `Filling` as JSON.

use super::error::{hide, reveal};
use super::leading::Leading;
use super::parameter::Slot;
use super::scan::{ChunkScan, ScannedColumn};
use super::shuffle::ShuffledRows;
use crate::gapfill::GapFillExec;
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::physical_expr::{
    proto_decode::PhysicalExprDecodeCtx, proto_encode::PhysicalExprEncodeCtx,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{AsExecutionPlan, PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf::PhysicalPlanNode;
use proto::{ColumnId, Error, Latest, ipc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// # Errors
/// When an operator or expression of the plan cannot travel.
pub(super) fn encode(plan: &Arc<dyn ExecutionPlan>) -> proto::Result<Bytes> {
    let node = PhysicalPlanNode::try_from_physical_plan(Arc::clone(plan), &ScanCodec).map_err(reveal)?;
    let mut bytes = Vec::new();
    node.try_encode(&mut bytes).map_err(reveal)?;
    // Protobuf decoders limit nesting; better to learn it here than on every node.
    PhysicalPlanNode::try_decode(&bytes).map_err(reveal)?;
    Ok(bytes.into())
}

/// # Errors
/// `PROTOCOL_VIOLATION`-like internal errors for bytes that another build wrote.
pub(super) fn decode(bytes: &[u8], context: &TaskContext) -> proto::Result<Arc<dyn ExecutionPlan>> {
    let node = PhysicalPlanNode::try_decode(bytes).map_err(reveal)?;
    node.try_into_physical_plan(context, &ScanCodec).map_err(reveal)
}

#[derive(Debug)]
struct ScanCodec;

/// What the leaf is.
#[derive(Serialize, Deserialize)]
enum Leaf {
    Scan(Header),
    Shuffled { input: u32, partitions: usize, nullable: Vec<bool> },
}

#[derive(Serialize, Deserialize)]
struct Header {
    scan: u32,
    columns: Vec<Column>,
    limit: Option<usize>,
    latest: Option<Latest>,
    leading: Option<Leading>,
    partitions: usize,
}

#[derive(Serialize, Deserialize)]
struct Column {
    id: ColumnId,
    nullable: bool,
}

fn damaged(what: impl std::fmt::Display) -> datafusion::error::DataFusionError {
    hide(Error::internal(format!("damaged operator in a fragment: {what}")))
}

fn write_leaf(leaf: &Leaf, fields: Vec<Field>, values: Vec<ArrayRef>, buffer: &mut Vec<u8>) -> Result<()> {
    let json = serde_json::to_vec(leaf).map_err(damaged)?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), values, &options)?;
    buffer.extend_from_slice(&u32::try_from(json.len()).map_err(damaged)?.to_le_bytes());
    buffer.extend_from_slice(&json);
    buffer.extend_from_slice(&ipc::encode_body(&row).map_err(hide)?);
    Ok(())
}

impl PhysicalExtensionCodec for ScanCodec {
    fn try_encode(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if let Some(gaps) = plan.downcast_ref::<GapFillExec>() {
            return serde_json::to_writer(buffer, gaps.filling()).map_err(damaged);
        }
        if let Some(rows) = plan.downcast_ref::<ShuffledRows>() {
            let schema = rows.schema();
            let nullable = schema.fields().iter().map(|field| field.is_nullable()).collect();
            let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
            let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
            let leaf = Leaf::Shuffled { input: rows.input, partitions: rows.partitions(), nullable };
            return write_leaf(&leaf, fields.collect(), nulls, buffer);
        }
        let Some(scan) = plan.downcast_ref::<ChunkScan>() else {
            return Err(hide(Error::unsupported(format!("sending {} to a data node", plan.name()))));
        };
        let schema = scan.schema();
        let columns = scan.columns.iter().zip(schema.fields());
        let header = Header {
            scan: scan.scan,
            columns: columns.map(|(c, field)| Column { id: c.id, nullable: field.is_nullable() }).collect(),
            limit: scan.limit,
            latest: scan.latest.clone(),
            leading: scan.leading.clone(),
            partitions: scan.partitions(),
        };
        let fields = scan.fields().map(|field| field.with_nullable(true)).collect();
        let values = scan.columns.iter().map(|c| c.missing.to_array()).collect::<Result<_>>()?;
        write_leaf(&Leaf::Scan(header), fields, values, buffer)
    }

    fn try_decode(
        &self,
        buffer: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let [input] = inputs {
            let filling = serde_json::from_slice(buffer).map_err(damaged)?;
            return Ok(Arc::new(GapFillExec::new(Arc::clone(input), filling)?));
        }
        let (length, rest) = buffer.split_first_chunk::<4>().ok_or_else(|| damaged("too short"))?;
        let (json, body) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(|| damaged("cut"))?;
        let leaf = serde_json::from_slice(json).map_err(damaged)?;
        let row = ipc::decode_body(Bytes::copy_from_slice(body)).map_err(hide)?;
        let header: Header = match leaf {
            Leaf::Scan(header) => header,
            Leaf::Shuffled { input, partitions, nullable } => {
                if row.num_columns() != nullable.len() || partitions == 0 {
                    return Err(damaged("columns do not match"));
                }
                let fields = row.schema_ref().fields().iter().zip(nullable);
                let fields = fields.map(|(field, nullable)| field.as_ref().clone().with_nullable(nullable));
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                return Ok(Arc::new(ShuffledRows::new(input, schema, partitions, None)));
            }
        };
        if row.num_columns() != header.columns.len() || row.num_rows() != 1 || header.partitions == 0 {
            return Err(damaged("columns do not match"));
        }
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (index, column) in header.columns.iter().enumerate() {
            fields.push(row.schema().field(index).clone().with_nullable(column.nullable));
            columns.push(ScannedColumn { id: column.id, missing: ScalarValue::try_from_array(row.column(index), 0)? });
        }
        let schema = Arc::new(Schema::new(fields));
        let Header { scan, limit, latest, leading, partitions, .. } = header;
        let scan = ChunkScan::new(scan, schema, columns, Vec::new(), limit, partitions, None);
        Ok(Arc::new(scan.with_latest(latest).with_leading(leading)))
    }

    fn try_encode_expr(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        buffer: &mut Vec<u8>,
        _: &PhysicalExprEncodeCtx<'_>,
    ) -> Result<()> {
        let slot = expr.downcast_ref::<Slot>();
        let slot = slot.ok_or_else(|| hide(Error::unsupported(format!("sending {expr} to a data node"))))?;
        buffer.extend_from_slice(&slot.encode()?);
        Ok(())
    }

    fn try_decode_expr(
        &self,
        buffer: &[u8],
        _: &[Arc<dyn PhysicalExpr>],
        _: &PhysicalExprDecodeCtx<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Slot::decode(buffer)
    }
}
