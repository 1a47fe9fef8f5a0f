//! Reading chunks, batch by batch, for one partition of a bound scan: where it is, what comes next, and on which thread.

use super::error::hide;
use super::node::{Verdict, Window, Windows};
use super::store::{ChunkRequest, ChunkRows, ChunkStore, ScanColumn};
use super::turn::Turn;
use arrow::array::{AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::physical_plan::metrics::Time;
use parking_lot::Mutex;
use proto::{ChunkId, Clock, ColumnId, ColumnPredicate, Error};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// About a quarter of a megabyte, which takes a third of `VISIT_TIME` to decode.
const VISIT_CELLS: usize = 32 << 10;
/// A visit that finds few rows ends after this time, so that others have their turn.
const VISIT_TIME: Duration = Duration::from_millis(1);
/// One that takes longer waits for the disk.
const VISIT_TIME_SLOW: Duration = Duration::from_millis(3);
/// A scan for addresses may wait for a chunk that is being sealed.
const ADDRESSES: [ColumnId; 3] = [ColumnId::CHUNK, ColumnId::PART, ColumnId::ROW];

/// What no partition has taken yet.
pub(super) struct ChunkQueue {
    work: Mutex<VecDeque<Work>>,
    pub partitions: usize,
}

enum Work {
    Chunk(ChunkId),
    /// Part of a chunk.
    Piece(ChunkRows),
}

impl ChunkQueue {
    pub fn new(chunks: impl Iterator<Item = ChunkId>, partitions: usize) -> ChunkQueue {
        ChunkQueue { work: Mutex::new(chunks.map(Work::Chunk).collect()), partitions }
    }

    pub fn clear(&self) {
        self.work.lock().clear();
    }

    pub fn add(&self, chunks: impl Iterator<Item = ChunkId>) {
        self.work.lock().extend(chunks.map(Work::Chunk));
    }

    /// The next rows to be read. The last chunks are `shared`: cut into pieces, so that all partitions end at about the
    /// same time.
    fn take(&self, store: &dyn ChunkStore, template: &ChunkRequest, shared: bool) -> Result<Option<ChunkRows>> {
        let mut work = self.work.lock();
        let chunk = match work.pop_front() {
            None => return Ok(None),
            Some(Work::Piece(rows)) => return Ok(Some(rows)),
            Some(Work::Chunk(chunk)) => chunk,
        };
        let request = ChunkRequest { chunk, ..template.clone() };
        let mut pieces = if shared && work.len() < self.partitions {
            // Nobody else is to find the queue empty while the chunk is opened.
            let mut pieces = store.scan(request, self.partitions).map_err(hide)?;
            work.extend(pieces.drain(1..).map(Work::Piece));
            pieces
        } else {
            drop(work);
            store.scan(request, 1).map_err(hide)?
        };
        Ok(pieces.pop())
    }
}

/// One partition's place in its chunks. Reads in place as long as the page cache answers, because going to another thread
/// and back costs as much as reading a narrow batch; once a visit is slow, on a blocking thread, and on none while the
/// consumer is busy: threads cannot run out because of slow consumers. Dropping it ends the scan.
pub(super) struct Cursor {
    pub store: Arc<dyn ChunkStore>,
    pub queue: Arc<ChunkQueue>,
    /// Others may have a part of its chunks.
    pub shares: bool,
    pub template: ChunkRequest,
    pub schema: SchemaRef,
    /// Rows at other times are left out; with the place of the time.
    pub window: Option<(Window, usize)>,
    /// The chunk being read.
    pub rows: Option<ChunkRows>,
    pub rows_left: usize,
    /// Values to read in one visit.
    pub cells: usize,
    /// No chunk is left.
    pub ended: bool,
    /// The last visit took long, or any may: the next goes to a thread that may wait, ahead of the consumer.
    pub slow: bool,
    pub clock: Arc<dyn Clock>,
    pub turn: Option<Arc<Turn>>,
    pub windows: Option<Arc<Windows>>,
    /// The statement's; a window adds its own.
    pub predicates: Vec<ColumnPredicate>,
    /// Time of its visits.
    pub busy: Time,
}

impl Cursor {
    /// Goes on with the rows of another window.
    pub fn enter(&mut self, window: Window, time_at: Option<usize>) {
        let windows = self.windows.as_ref().expect("only scans with windows enter one");
        self.ended = false;
        self.window = time_at.map(|at| (window, at));
        self.shares = matches!(*windows.verdict().borrow(), Verdict::Rest(_));
        self.template.predicates.clone_from(&self.predicates);
        self.template.predicates.push(window.predicate(&windows.leading));
    }
}

pub(super) enum Reading {
    /// Until the first partition has read its windows.
    Waiting(watch::Receiver<Verdict>, Box<Cursor>),
    Idle(Box<Cursor>),
    Ahead(tokio::task::JoinHandle<Result<Visited>>),
}

pub(super) type Visited = (VecDeque<RecordBatch>, Box<Cursor>);

pub(super) fn addresses(columns: &[ScanColumn]) -> bool {
    columns.iter().any(|column| ADDRESSES.contains(&column.id))
}

pub(super) fn joined<T>(outcome: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| Err(hide(Error::internal(format!("a chunk reader stopped: {error}")))))
}

pub(super) fn blocking(cursor: Box<Cursor>) -> tokio::task::JoinHandle<Result<Visited>> {
    tokio::task::spawn_blocking(move || visit(cursor))
}

/// The next batches. One at first, so that whoever needs few rows has them soon; then more.
pub(super) fn visit(mut cursor: Box<Cursor>) -> Result<Visited> {
    let (mut batches, mut cells) = (VecDeque::new(), 0);
    let started = cursor.clock.elapsed();
    let mut took = Duration::ZERO;
    while cells < cursor.cells && took < VISIT_TIME {
        let Some(batch) = step(&mut cursor)? else {
            cursor.ended = true;
            break;
        };
        if batch.num_rows() > 0 {
            cells += batch.num_rows() * batch.num_columns().max(1);
            batches.push_back(batch);
        }
        took = cursor.clock.elapsed().saturating_sub(started);
    }
    cursor.cells = VISIT_CELLS;
    let took = cursor.clock.elapsed().saturating_sub(started);
    cursor.busy.add_duration(took);
    cursor.slow = took > VISIT_TIME_SLOW || addresses(&cursor.template.columns);
    if let Some(turn) = &cursor.turn {
        turn.ran(took);
    }
    Ok((batches, cursor))
}

/// The next batch, which may be empty, from this chunk or the next in the queue.
fn step(cursor: &mut Cursor) -> Result<Option<RecordBatch>> {
    while cursor.rows_left > 0 {
        let Some(rows) = &mut cursor.rows else {
            let Some(rows) = cursor.queue.take(cursor.store.as_ref(), &cursor.template, cursor.shares)? else { break };
            cursor.rows = Some(rows);
            continue;
        };
        match rows.next().transpose().map_err(hide)? {
            None => cursor.rows = None,
            Some(batch) => {
                let batch = match &cursor.window {
                    Some((window, time_at)) => within(batch, *window, *time_at)?,
                    None => batch,
                };
                if batch.num_rows() == 0 {
                    continue;
                }
                let batch = batch.slice(0, batch.num_rows().min(cursor.rows_left));
                cursor.rows_left -= batch.num_rows();
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = batch.columns().to_vec();
                return Ok(Some(RecordBatch::try_new_with_options(cursor.schema.clone(), columns, &options)?));
            }
        }
    }
    Ok(None)
}

pub(super) fn times(batch: &RecordBatch, at: usize) -> &[i64] {
    batch.column(at).as_primitive::<TimestampMicrosecondType>().values()
}

/// The rows of the window. Most batches lie in it as a whole: the store has skipped the others.
fn within(batch: RecordBatch, window: Window, time_at: usize) -> Result<RecordBatch> {
    let inside = |us: &i64| window.min <= *us && *us <= window.max;
    let times = times(&batch, time_at);
    if times.iter().fold(true, |all, us| all & inside(us)) {
        return Ok(batch);
    }
    let inside = BooleanArray::from_iter(times.iter().map(|us| Some(inside(us))));
    Ok(filter_record_batch(&batch, &inside)?)
}
