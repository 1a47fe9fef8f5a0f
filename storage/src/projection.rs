//! From the columns that are stored to the columns a reader wants: matched by `ColumnId`, cast to the wanted type,
//! filled in where the stored rows are older than the column.

use crate::deletes::is_address;
use crate::error::Result;
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use proto::ColumnId;
use std::sync::Arc;

/// A column a scan returns.
#[derive(Debug, Clone)]
pub struct ScanColumn {
    pub id: ColumnId,
    /// Wanted name and type.
    pub field: Field,
    /// One value, of the wanted type, for rows written before the column was added; NULL when `None`.
    pub missing: Option<ArrayRef>,
}

#[derive(Clone)]
pub(crate) struct Projection {
    pub(crate) schema: SchemaRef,
    pub(crate) columns: Arc<Vec<ScanColumn>>,
}

impl Projection {
    pub(crate) fn new(columns: Vec<ScanColumn>) -> Projection {
        let fields = columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>();
        Projection { schema: Arc::new(Schema::new(fields)), columns: Arc::new(columns) }
    }

    /// Whether a column is part of the rows' addresses.
    pub(crate) fn addresses(&self) -> bool {
        self.columns.iter().any(|column| is_address(column.id))
    }

    /// `stored` gives the stored array of the n-th wanted column, if there is one.
    pub(crate) fn batch(&self, rows: usize, stored: impl Fn(usize) -> Option<ArrayRef>) -> Result<RecordBatch> {
        let arrays = self.columns.iter().enumerate().map(|(at, column)| -> Result<ArrayRef> {
            let wanted = column.field.data_type();
            match (stored(at), &column.missing) {
                (Some(array), _) if array.data_type() == wanted => Ok(array),
                (Some(array), _) => Ok(cast(&array, wanted)?),
                (None, None) => Ok(new_null_array(wanted, rows)),
                (None, Some(value)) => {
                    assert_eq!(value.len(), 1, "the value of missing rows is one value");
                    Ok(take(&cast(value, wanted)?, &UInt32Array::from(vec![0; rows]), None)?)
                }
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?)
    }
}
