//! Names, views, parameter and result types.

use super::cluster::{Cluster, statement};
use crate::PgType;
use crate::plan::{Prepared, Relation};
use proto::{ColumnId, SqlState, TableId};
use std::sync::Arc;

fn prepare(cluster: &Arc<Cluster>, sql: &str, types: &[Option<PgType>]) -> proto::Result<Prepared> {
    cluster.engine.prepare(&statement(sql), types, &cluster.context(true))
}

#[tokio::test]
async fn result_columns_tell_name_type_and_origin() {
    let cluster = Cluster::new(&["dn1"]);
    let prepared =
        prepare(&cluster, "SELECT device AS d, temp, temp + 1 AS up, count(*) OVER () FROM conditions", &[]).unwrap();
    let columns = prepared.columns();
    let names: Vec<_> = columns[..3].iter().map(|column| (column.name.as_str(), column.ty.clone())).collect();
    assert_eq!(names, [("d", PgType::Int4), ("temp", PgType::Float8), ("up", PgType::Float8)]);
    assert_eq!((columns[1].table, columns[1].column), (Some(TableId(1)), Some(ColumnId(3))));
    assert_eq!((columns[2].table, columns[2].column), (None, None));
    assert_eq!(columns[3].ty, PgType::Int8);
}

#[tokio::test]
async fn parameters_take_the_type_of_their_surroundings() {
    let cluster = Cluster::new(&["dn1"]);
    let sql = "SELECT * FROM conditions WHERE time > $2 AND device IN ($1, 3) AND host = $3";
    let prepared = prepare(&cluster, sql, &[]).unwrap();
    assert_eq!(prepared.params(), [PgType::Int4, PgType::Timestamptz, PgType::Text]);
    let declared = prepare(&cluster, "SELECT $1 AS p", &[Some(PgType::Int8)]).unwrap();
    assert_eq!(declared.columns()[0].ty, PgType::Int8);
    let free = prepare(&cluster, "SELECT $1 AS p", &[]).unwrap();
    assert_eq!((free.params(), &free.columns()[0].ty), (&[PgType::Text][..], &PgType::Text));
    let hole = prepare(&cluster, "SELECT * FROM conditions WHERE device = $2", &[]).err().unwrap();
    assert_eq!(hole.code, SqlState::INDETERMINATE_DATATYPE);
    assert_eq!(hole.message, "could not determine data type of parameter $1");
}

#[tokio::test]
async fn an_unknown_relation_is_named() {
    let cluster = Cluster::new(&["dn1"]);
    for (name, message) in [
        ("nowhere", "relation \"nowhere\" does not exist"),
        ("other.conditions", "relation \"other.conditions\" does not exist"),
    ] {
        let error = prepare(&cluster, &format!("SELECT * FROM {name}"), &[]).err().unwrap();
        assert_eq!((error.code, &*error.message), (SqlState::UNDEFINED_TABLE, message));
    }
    assert!(prepare(&cluster, "SELECT * FROM public.conditions", &[]).is_ok());
}

#[tokio::test]
async fn views_that_name_each_other_end() {
    let cluster = Cluster::new(&["dn1"]);
    cluster.relations.lock().insert("a".into(), Relation::View { sql: "SELECT * FROM b".into() });
    cluster.relations.lock().insert("b".into(), Relation::View { sql: "SELECT * FROM a".into() });
    let error = prepare(&cluster, "SELECT * FROM a", &[]).err().unwrap();
    assert_eq!(error.code, SqlState::STATEMENT_TOO_COMPLEX);
}

#[tokio::test]
async fn catalog_rows_can_be_queried_and_joined() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let def = super::cluster::hypertable(9, "x", &["dn1"], 7);
    let catalog = super::cluster::rows(&def, 3, 1, 5);
    cluster.relations.lock().insert("catalog".into(), Relation::Rows(catalog));
    let answer = cluster.query("SELECT count(*) AS n FROM catalog", true).await.unwrap();
    assert_eq!(super::cluster::text(&answer, true), ["| n |", "| 3 |"]);
    let joined = "SELECT count(*) FROM catalog k JOIN conditions c ON c.device = k.device";
    let (on, off) = (cluster.query(joined, true).await.unwrap(), cluster.query(joined, false).await.unwrap());
    assert_eq!(super::cluster::text(&on, true), super::cluster::text(&off, true));
}

/// Statements as clients build them. Deeper ones are refused before they are planned (`semantics::check_depth`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_terms_do_not_overflow_the_stack() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let sum = vec!["1"; 500].join(" + ");
    let either = (0..500).map(|n| format!("device = {n}")).collect::<Vec<_>>().join(" OR ");
    for sql in [format!("SELECT {sum} AS s"), format!("SELECT count(*) FROM conditions WHERE {either}")] {
        cluster.query(&sql, true).await.unwrap();
    }
    let unlike = (0..300).map(|n| format!("temp + {n} > {n}")).collect::<Vec<_>>().join(" OR ");
    cluster.query(&format!("SELECT count(*) FROM conditions WHERE {unlike}"), true).await.unwrap();
}
