//! Scanning a segment: projection and pruning go down to Parquet; visibility and stored forms are undone here.

use super::blocks::BlockReader;
use super::columns::restore;
use super::prune::select;
use super::{OpenSegment, SEQ_COLUMN};
use crate::error::{Result, StorageError};
use crate::projection::Projection;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use proto::{ColumnPredicate, CommitSeq};
use std::sync::Arc;

pub(crate) struct SegmentScan {
    segment: Arc<OpenSegment>,
    projection: Projection,
    /// The rows' visibility is to be checked against this snapshot.
    snapshot: Option<CommitSeq>,
    /// For each wanted column its place among the columns read, and among all columns of the segment.
    places: Vec<Option<(usize, usize)>>,
    reader: ParquetRecordBatchReader,
    failure: Arc<Mutex<Option<StorageError>>>,
}

impl SegmentScan {
    pub(crate) fn new(
        segment: Arc<OpenSegment>,
        projection: Projection,
        predicates: &[ColumnPredicate],
        snapshot: CommitSeq,
        batch_rows: usize,
    ) -> Result<SegmentScan> {
        let snapshot = (segment.record.seq_max > snapshot.0).then_some(snapshot);
        let roots =
            projection.columns.iter().map(|column| segment.columns.iter().position(|c| c.id == Some(column.id)));
        let roots = roots.collect::<Vec<_>>();
        let mut read = roots.iter().flatten().copied().collect::<Vec<_>>();
        read.extend(snapshot.map(|_| segment.columns.len() - 1));
        read.sort_unstable();
        read.dedup();
        let place = |root: usize| read.binary_search(&root).expect("every wanted column is read");
        let places = roots.iter().map(|root| root.map(|root| (place(root), root))).collect();

        let failure = Arc::new(Mutex::new(None));
        let input = BlockReader::new(Arc::clone(&segment), Arc::clone(&failure));
        let selection = select(&segment, predicates);
        let mask = ProjectionMask::roots(segment.metadata.parquet_schema(), read);
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(input, segment.metadata.clone())
            .with_batch_size(batch_rows)
            .with_projection(mask)
            .with_row_groups(selection.row_groups);
        if let Some(rows) = selection.rows {
            builder = builder.with_row_selection(rows);
        }
        let reader = builder.build().map_err(|error| super::parquet_error(segment.path(), error))?;
        Ok(SegmentScan { segment, projection, snapshot, places, reader, failure })
    }

    /// The stored batch as the reader wants it; rows that the snapshot does not see are left out.
    fn conform(&self, stored: RecordBatch) -> Result<RecordBatch> {
        let visible = match self.snapshot {
            None => stored,
            Some(snapshot) => {
                let seqs = stored.column_by_name(SEQ_COLUMN).expect("the column was asked for");
                let seqs = seqs.as_primitive::<Int64Type>().values();
                let visible = seqs.iter().map(|seq| *seq as u64 <= snapshot.0).collect::<Vec<_>>();
                filter_record_batch(&stored, &BooleanArray::from(visible))?
            }
        };
        self.projection.batch(visible.num_rows(), |wanted| {
            let (place, root) = self.places[wanted]?;
            Some(restore(self.segment.columns[root].stored, Arc::clone(visible.column(place))))
        })
    }
}

impl Iterator for SegmentScan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            let batch = match self.reader.next()? {
                Ok(stored) => self.conform(stored),
                Err(error) => Err(self
                    .failure
                    .lock()
                    .take()
                    .unwrap_or_else(|| StorageError::damaged(self.segment.path(), 0, error.to_string()))),
            };
            match batch {
                Ok(batch) if batch.num_rows() == 0 => {}
                other => return Some(other),
            }
        }
    }
}
