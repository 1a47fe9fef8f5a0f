//! What a gap-filling operator is to do, all constants known. Travels to data nodes as JSON.

use super::grid::Grid;
use arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Filling {
    /// The input column with the start of a row's bucket.
    pub time: usize,
    /// The input columns that rows of one series share.
    pub groups: Vec<usize>,
    pub grid: Grid,
    /// In the first bucket to be made, and before which the last one starts. In units of the time column.
    pub start: i64,
    pub finish: i64,
    pub fills: Vec<Fill>,
}

/// How a column that a gap leaves without a value gets one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fill {
    pub column: usize,
    pub how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum How {
    /// The last row's value.
    Carry {
        /// A row's NULL is a gap as well.
        over_null: bool,
        /// A further column tells the rows that wanted a value from before the first row.
        marked: bool,
    },
    /// On the line between the neighbouring rows.
    Interpolate,
}

impl Fill {
    /// The name of the further column, if there is one.
    pub fn mark(&self, column: &str) -> Option<String> {
        match self.how {
            How::Carry { marked: true, .. } => Some(format!("{column} before the first")),
            _ => None,
        }
    }
}

/// The input's columns, which all may be NULL in a gap, then the marks.
pub fn output(input: &Schema, fills: &[Fill]) -> Schema {
    let columns = input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let marks = fills.iter().filter_map(|fill| fill.mark(input.field(fill.column).name()));
    let marks = marks.map(|name| Field::new(name, DataType::Boolean, true));
    Schema::new_with_metadata(columns.chain(marks).collect::<Vec<_>>(), input.metadata().clone())
}
