//! The relations behind statements that change rows.

use super::cluster::{Cluster, text};
use crate::plan::Relation;
use crate::plan::target::{CHANGED, Narrowing, changed_column};
use crate::{PgType, TableDef};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type, Schema};
use proto::SqlState;
use std::collections::BTreeSet;
use std::sync::Arc;

const ADDRESSES: &str = "SELECT c.\"\0chunk\", c.\"\0part\", c.\"\0row\", c.device FROM \"\0target\".conditions AS c";

async fn addresses(cluster: &Arc<Cluster>, rest: &str, push_down: bool) -> BTreeSet<(i64, i64, i64)> {
    let found = cluster.query(&format!("{ADDRESSES} {rest}"), push_down).await.unwrap();
    if found.num_rows() == 0 {
        return BTreeSet::new();
    }
    let column = |index: usize| found.column(index).as_primitive::<Int64Type>().values().to_vec();
    let of_row = column(0).into_iter().zip(column(1)).zip(column(2)).map(|((chunk, part), row)| (chunk, part, row));
    let all = of_row.collect::<BTreeSet<_>>();
    assert_eq!(all.len(), found.num_rows(), "an address names one row");
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_has_an_address_and_only_targets_show_it() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for push_down in [true, false] {
        assert_eq!(addresses(&cluster, "", push_down).await.len(), 3000);
        let of_device = cluster.query("SELECT count(*) FROM conditions WHERE device = 3", push_down).await.unwrap();
        let expected = of_device.column(0).as_primitive::<Int64Type>().value(0);
        let found = addresses(&cluster, "WHERE c.device = 3", push_down).await;
        assert_eq!(found.len() as i64, expected);
        let joined = addresses(&cluster, "JOIN hot ON hot.device = -1", push_down).await;
        assert!(joined.is_empty());
    }
    let all = cluster.query("SELECT * FROM conditions LIMIT 1", true).await.unwrap();
    assert_eq!(all.num_columns(), 4);
    let error = cluster.query("SELECT \"\0row\" FROM conditions", true).await.unwrap_err();
    assert_eq!(error.code, SqlState::UNDEFINED_COLUMN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowed_target_yields_the_rows_it_is_narrowed_to() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let wanted = |values: Vec<Option<i32>>| Arc::new(Int32Array::from(values)) as ArrayRef;
    for (values, filter) in [
        (vec![Some(3), None, Some(5), Some(3)], "device IN (3, 5)"),
        (vec![Some(9), Some(2), Some(4), Some(3)], "device BETWEEN 2 AND 9"),
        (vec![None], "false"),
    ] {
        *cluster.only.lock() = Narrowing::to("device", &wanted(values), 2).into_iter().collect();
        for push_down in [true, false] {
            let found = cluster.query(ADDRESSES, push_down).await.unwrap();
            let sql = format!("SELECT device FROM conditions WHERE {filter}");
            let expected = cluster.query(&sql, push_down).await.unwrap();
            assert_eq!(found.num_rows(), expected.num_rows(), "{filter}");
            if found.num_rows() > 0 {
                let mut devices: [Vec<i32>; 2] = [(&found, 3), (&expected, 0)]
                    .map(|(batch, index)| batch.column(index).as_primitive::<Int32Type>().values().to_vec());
                devices.iter_mut().for_each(|devices| devices.sort());
                assert_eq!(devices[0], devices[1], "{filter}");
            }
        }
    }
}

fn changed(def: &Arc<TableDef>) -> Relation {
    let fields = [
        PgType::Int4.field(&changed_column("c", "device"), true),
        PgType::Float8.field(&changed_column("c", "temp"), true),
        PgType::Text.field(&changed_column("o", "device"), true),
    ];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let batch = |n: i32| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![n, n + 1])),
            Arc::new(Float64Array::from(vec![0.5, 1.5])),
            Arc::new(StringArray::from(vec!["x", "y"])),
        ];
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    };
    let batches = (0..50).map(|n| batch(n * 2)).collect::<Vec<_>>();
    Relation::Changed { def: def.clone(), schema: schema.clone(), batches: Arc::new(batches) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_rows_keep_their_order_and_the_names_of_their_relations() {
    let cluster = Cluster::new(&["dn1"]);
    let Some(Relation::Table { def, .. }) = cluster.relations.lock().get("conditions").cloned() else {
        panic!("conditions is a table");
    };
    cluster.relations.lock().insert(CHANGED.to_owned(), changed(&def));
    let sql = "SELECT c.device, o.device AS other, temp * 2 AS twice FROM \"\0changed\"";
    let found = cluster.query(sql, true).await.unwrap();
    let devices = found.column(0).as_primitive::<Int32Type>().values().to_vec();
    assert_eq!(devices, (0..100).collect::<Vec<_>>());
    assert_eq!(text(&found.slice(1, 1), true)[1], "| 1      | y     | 3.0   |");
    let ambiguous = cluster.query("SELECT device FROM \"\0changed\"", true).await.unwrap_err();
    assert_eq!(ambiguous.code, SqlState::AMBIGUOUS_COLUMN);
    assert_eq!(cluster.query("SELECT * FROM \"\0changed\"", true).await.unwrap().num_columns(), 3);
}
