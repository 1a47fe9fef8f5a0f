//! Reads everything a data directory holds and says what is wrong with it. Changes nothing; the store must be closed.

use crate::deletes::{self, DeletesRecord, Part, PartView};
use crate::error::{Result, StorageError};
use crate::log::Log;
use crate::manifest::{ChunkRecord, Manifest};
use crate::projection::{Projection, ScanColumn};
use crate::segment::{OpenSegment, SEQ, SegmentRecord, SegmentScan, check_order};
use crate::store::{LOG_DIR, SEGMENTS_DIR};
use crate::vfs::Vfs;
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
/// the manifest; that removed rows exist.
pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut note = |path: &Path, outcome: Result<()>| {
        let found = outcome.err().map(|error| Problem { path: path.to_owned(), message: error.to_string() });
        problems.extend(found);
    };
    let log = dir.join(LOG_DIR);
    note(&log, Log::verify(vfs, &log, &mut |_, _| Ok(())));
    match Manifest::load(vfs, dir) {
        Err(error) => note(dir, Err(error)),
        Ok(None) => note(dir, Err(StorageError::damaged(dir, 0, "there is no manifest"))),
        Ok(Some(manifest)) => {
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
    for batch in SegmentScan::new(segment, view, projection, &[], CommitSeq::MAX, crate::segment::READ_ROWS)? {
        let batch = batch?;
        if let Some((low, high)) = crate::delta::bounds(batch.column(sorted))?
            && ((low as u64) < record.seq_min || high as u64 > record.seq_max)
        {
            let listed = record.seq_min..=record.seq_max;
            return Err(wrong(format!("commits {low}..={high} are outside of the listed {listed:?}")));
        }
        if let Some(row) = check_order(&batch.columns()[..sorted])? {
            return Err(wrong(format!("row {} is out of order", rows + row as u64)));
        }
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

fn verify_deletes(vfs: &dyn Vfs, dir: &Path, id: ChunkId, chunk: &ChunkRecord, record: &DeletesRecord) -> Result<()> {
    let deletes = deletes::load(vfs, dir, id, record)?;
    deletes::check(&deletes, &chunk.segments).map_err(|reason| {
        let path = dir.join(record.file_name(id));
        StorageError::damaged(&path, 0, format!("chunk {id}: {reason}"))
    })
}
