//! Plans on the wire.

use super::cluster::Cluster;
use crate::PgType;
use crate::plan::codec::{decode, encode};
use crate::plan::scan::{ChunkScan, ScannedColumn};
use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use proto::ColumnId;
use std::sync::Arc;

#[test]
fn a_scan_keeps_everything_but_its_chunks_and_predicates() {
    let device = super::cluster::column(2, "device", PgType::Int4);
    let note = super::cluster::column(9, "note", PgType::Varchar(Some(7)));
    let required = crate::ColumnDef { nullable: false, ..device };
    let schema = Arc::new(Schema::new(vec![required.field(), note.field()]));
    let columns = vec![
        ScannedColumn { id: ColumnId(2), missing: ScalarValue::Int32(None) },
        ScannedColumn { id: ColumnId(9), missing: ScalarValue::Utf8(Some("x".into())) },
    ];
    let scan = ChunkScan::new(3, schema.clone(), columns.clone(), vec![], Some(10), 4, None);
    let plan: Arc<dyn ExecutionPlan> = Arc::new(scan);
    let back = decode(&encode(&plan).unwrap(), &TaskContext::default()).unwrap();
    let back = back.downcast_ref::<ChunkScan>().unwrap();
    assert_eq!((back.scan, back.limit, back.partitions()), (3, Some(10), 4));
    assert_eq!((&back.columns, back.schema()), (&columns, schema));
}

#[test]
fn a_scan_without_columns_travels() {
    let scan = ChunkScan::new(0, Arc::new(Schema::empty()), vec![], vec![], None, 2, None);
    let plan: Arc<dyn ExecutionPlan> = Arc::new(scan);
    let back = decode(&encode(&plan).unwrap(), &TaskContext::default()).unwrap();
    assert_eq!(back.schema().fields().len(), 0);
}

#[test]
fn damaged_bytes_are_an_error() {
    let scan = ChunkScan::new(0, Arc::new(Schema::empty()), vec![], vec![], None, 2, None);
    let plan: Arc<dyn ExecutionPlan> = Arc::new(scan);
    let bytes = encode(&plan).unwrap();
    for length in 1..bytes.len() {
        let cut = decode(&bytes[..length], &TaskContext::default());
        assert!(cut.is_err() || length == bytes.len(), "{length} of {} bytes were understood", bytes.len());
    }
}

/// Push-down falls back to bare scans when a plan cannot be encoded; these must not need that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_and_windows_survive_the_wire() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for call in [
        "count(*)",
        "count(temp)",
        "count(DISTINCT host)",
        "sum(temp)",
        "avg(temp)",
        "min(host)",
        "max(time)",
        "stddev(temp)",
        "stddev_pop(temp)",
        "var_samp(temp)",
        "var_pop(temp)",
        "bool_and(temp > 0)",
        "bool_or(temp > 0)",
        "corr(temp, device)",
        "covar_pop(temp, device)",
        "regr_slope(temp, device)",
        "bit_and(device)",
        "bit_or(device)",
        "array_agg(temp)",
        "array_agg(temp ORDER BY time)",
        "string_agg(host, ',')",
        "first_value(temp ORDER BY time)",
        "last_value(temp ORDER BY time DESC)",
        "sum(temp) FILTER (WHERE temp > 1)",
    ] {
        let text = cluster.explain(&format!("SELECT {call} FROM conditions"), true, false).await;
        assert!(text.contains("Aggregate (partial)") && !text.contains("is off"), "{call}\n{text}");
        let text =
            cluster.explain(&format!("SELECT device, {call} FROM conditions GROUP BY device"), true, false).await;
        assert!(text.starts_with("Custom Scan (AsyncAppend)"), "{call}\n{text}");
    }
    for call in [
        "row_number()",
        "rank()",
        "dense_rank()",
        "lag(temp)",
        "lead(temp, 2)",
        "first_value(temp)",
        "sum(temp)",
        "avg(temp)",
        "ntile(4)",
        "percent_rank()",
        "cume_dist()",
        "nth_value(temp, 2)",
    ] {
        let sql = format!("SELECT {call} OVER (PARTITION BY device ORDER BY time) FROM conditions");
        let text = cluster.explain(&sql, true, false).await;
        assert!(text.starts_with("Custom Scan (AsyncAppend)"), "{call}\n{text}");
    }
}
