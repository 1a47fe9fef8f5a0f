//! Whether a batch may be stored: the table's columns in order, no NULL where none may be.

use arrow::array::{Array, RecordBatch};
use engine::TableDef;
use proto::{Error, Result, SqlState};

/// The batch under the table's own schema, whose fields carry the column ids.
///
/// # Errors
/// 23502 with PostgreSQL's text, or TimescaleDB's for the time column.
pub(crate) fn check(table: &TableDef, batch: RecordBatch) -> Result<RecordBatch> {
    let mismatch =
        |what: String| Error::internal(format!("rows for relation \"{}\" do not fit it: {what}", table.name));
    if batch.num_columns() != table.columns.len() {
        return Err(mismatch(format!("{} columns instead of {}", batch.num_columns(), table.columns.len())));
    }
    check_nulls(table, |index| batch.column(index).logical_null_count() > 0)?;
    RecordBatch::try_new(table.schema(), batch.columns().to_vec()).map_err(|e| mismatch(e.to_string()))
}

/// # Errors
/// 23502 for the first column that must not be NULL and is, `is_null` says which are.
pub(crate) fn check_nulls(table: &TableDef, is_null: impl Fn(usize) -> bool) -> Result<()> {
    let time = table.hypertable.as_ref().map(|hypertable| hypertable.time_column);
    let is_time = |index: &usize| Some(table.columns[*index].id) == time;
    let indexes = || 0..table.columns.len();
    if let Some(index) = indexes().find(|index| is_time(index) && is_null(*index)) {
        let column = &table.columns[index].name;
        let text = format!("NULL value in column \"{column}\" violates not-null constraint");
        let hint = "Columns used for time partitioning cannot be NULL.";
        return Err(Error::new(SqlState::NOT_NULL_VIOLATION, text).hint(hint));
    }
    if let Some(index) = indexes().find(|index| !table.columns[*index].nullable && is_null(*index)) {
        let column = &table.columns[index].name;
        let text =
            format!("null value in column \"{column}\" of relation \"{}\" violates not-null constraint", table.name);
        return Err(Error::new(SqlState::NOT_NULL_VIOLATION, text));
    }
    Ok(())
}
