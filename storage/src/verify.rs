//! Reads everything a data directory holds and says what is wrong with it. Changes nothing; the store must be closed.

use crate::deletes::{self, DeletesRecord, Part, PartView};
use crate::error::{Result, StorageError};
use crate::log::{Log, Lsn};
use crate::manifest::{ChunkRecord, Manifest};
use crate::projection::{Projection, ScanColumn};
use crate::segment::{OpenSegment, SEQ, SegmentRecord, SegmentScan, check_order, check_series, check_statistics};
use crate::store::{LOG_DIR, SEGMENTS_DIR};
use crate::vfs::Vfs;
use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field};
use proto::{ChunkId, CommitSeq};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    pub message: String,
}

/// Checksums of manifest, log, segments and deletes files; row counts, order, time and commit bounds of segments against
/// the manifest, their statistics against their values; that removed rows exist.
pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut note = |path: &Path, outcome: Result<()>| {
        let found = outcome.err().map(|error| Problem { path: path.to_owned(), message: error.to_string() });
        problems.extend(found);
    };
    let log = dir.join(LOG_DIR);
    let read_log = |durable_end| Log::verify(vfs, &log, durable_end, &mut |_, _| Ok(()));
    let manifest = match Manifest::load(vfs, dir) {
        Ok(Some(manifest)) => Ok(manifest),
        Ok(None) => Err(StorageError::damaged(dir, 0, "there is no manifest")),
        Err(error) => Err(error),
    };
    match manifest {
        Err(error) => {
            note(&log, read_log(Lsn(0)).map(drop));
            note(dir, Err(error));
        }
        Ok(manifest) => {
            note(&log, read_log(manifest.log_end).and_then(|held| manifest.check_log(&log, held)));
            for (id, chunk) in &manifest.chunks {
                for record in &chunk.segments {
                    let path = dir.join(SEGMENTS_DIR).join(record.file_name(*id));
                    note(&path, verify_segment(vfs, &path, *id, chunk, record));
                }
                if let Some(record) = &chunk.deletes {
                    let segments = dir.join(SEGMENTS_DIR);
                    note(&segments.join(record.file_name(*id)), verify_deletes(vfs, &segments, *id, chunk, record));
                }
            }
        }
    }
    problems
}

fn verify_segment(vfs: &dyn Vfs, path: &Path, id: ChunkId, chunk: &ChunkRecord, record: &SegmentRecord) -> Result<()> {
    let segment = Arc::new(OpenSegment::open(vfs, path, record)?);
    segment.verify_blocks()?;
    let wrong = |reason: String| StorageError::damaged(path, 0, format!("chunk {id}: {reason}"));
    let sort = record.sort.iter().map(|column| {
        let field = segment.field(*column).ok_or_else(|| wrong(format!("the sort column {column} is missing")))?;
        Ok(ScanColumn { id: *column, field, missing: None })
    });
    let mut columns = sort.collect::<Result<Vec<_>>>()?;
    let sorted = columns.len();
    columns.push(ScanColumn { id: SEQ, field: Field::new("seq", DataType::Int64, false), missing: None });
    let projection = Projection::new(columns);
    let time = chunk.layout.time.and_then(|time| record.sort.iter().position(|column| *column == time));
    let view = PartView::whole(id, Part::segment(record.number));
    let mut rows = 0;
    let mut before: Option<Vec<ArrayRef>> = None;
    check_statistics(&segment)?;
    check_series(&segment)?;
    for batch in SegmentScan::new(segment, view, projection, &[], CommitSeq::MAX, crate::segment::READ_ROWS)? {
        let batch = batch?;
        if let Some((low, high)) = crate::delta::bounds(batch.column(sorted))?
            && ((low as u64) < record.seq_min || high as u64 > record.seq_max)
        {
            let listed = record.seq_min..=record.seq_max;
            return Err(wrong(format!("commits {low}..={high} are outside of the listed {listed:?}")));
        }
        let sorted = &batch.columns()[..sorted];
        let seam = before.map(|before| meeting(&before, sorted)).transpose()?;
        let torn = seam.map(|seam| check_order(&seam)).transpose()?.flatten().map(|_| 0);
        if let Some(row) = torn.or(check_order(sorted)?) {
            return Err(wrong(format!("row {} is out of order", rows + row as u64)));
        }
        before = Some(sorted.iter().map(|column| column.slice(column.len() - 1, 1)).collect());
        rows += batch.num_rows() as u64;
        if let (Some(at), Some(bounds)) = (time, record.time)
            && let Some((low, high)) = crate::delta::bounds(batch.column(at))?
            && (low < bounds.0 || high > bounds.1)
        {
            return Err(wrong(format!("times {low}..={high} are outside of the listed {bounds:?}")));
        }
    }
    match rows == record.rows {
        true => Ok(()),
        false => Err(wrong(format!("{rows} rows instead of the listed {}", record.rows))),
    }
}

/// The last row of a batch and the first of the next.
fn meeting(last: &[ArrayRef], next: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let pairs = last.iter().zip(next).map(|(last, next)| Ok(concat(&[last.as_ref(), next.slice(0, 1).as_ref()])?));
    pairs.collect()
}

fn verify_deletes(vfs: &dyn Vfs, dir: &Path, id: ChunkId, chunk: &ChunkRecord, record: &DeletesRecord) -> Result<()> {
    let deletes = deletes::load(vfs, dir, id, record)?;
    deletes::check(&deletes, &chunk.segments).map_err(|reason| {
        let path = dir.join(record.file_name(id));
        StorageError::damaged(&path, 0, format!("chunk {id}: {reason}"))
    })
}
