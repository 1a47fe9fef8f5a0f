//! `show_chunks` and `drop_chunks`.

use super::host::Host;
use super::signature::Bound;
use super::value::boundary;
use crate::catalog::CatalogChange;
use crate::pg::backend::{Notice, Severity};
use crate::pgcatalog::{Row, Value};
use engine::types::TimeContext;
use engine::{ChunkDef, Hypertable, PgType, TableDef};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

struct Window {
    /// Chunks that end at or before it.
    older_than: Option<i64>,
    /// Chunks that start at or after it.
    newer_than: Option<i64>,
    created_before: Option<i64>,
    created_after: Option<i64>,
}

impl Window {
    fn of(host: &Host<'_>, args: &Bound<'_>, ty: &PgType) -> Result<Window> {
        let context = TimeContext::of_session(&host.session.settings())?;
        let read = |name: &str, ty: &PgType| boundary(args.argument(name), ty, &context);
        let window = Window {
            older_than: read("older_than", ty)?,
            newer_than: read("newer_than", ty)?,
            created_before: read("created_before", &PgType::Timestamptz)?,
            created_after: read("created_after", &PgType::Timestamptz)?,
        };
        let is_empty = |start: Option<i64>, end: Option<i64>| start.zip(end).is_some_and(|(start, end)| end < start);
        if is_empty(window.newer_than, window.older_than) || is_empty(window.created_after, window.created_before) {
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "invalid time range")
                .hint("The start of the time range must be before the end."));
        }
        Ok(window)
    }

    fn is_open(&self) -> bool {
        self.older_than.is_none()
            && self.newer_than.is_none()
            && self.created_before.is_none()
            && self.created_after.is_none()
    }

    fn holds(&self, chunk: &ChunkDef) -> bool {
        self.older_than.is_none_or(|end| chunk.time.end() <= end)
            && self.newer_than.is_none_or(|start| chunk.time.start() >= start)
            && self.created_before.is_none_or(|before| chunk.created_us < before)
            && self.created_after.is_none_or(|after| chunk.created_us > after)
    }
}

type Selection = (Arc<TableDef>, Hypertable, Vec<Arc<ChunkDef>>, bool);

fn selected(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Selection> {
    let (table, hypertable) = host.hypertable(args.text("relation"))?;
    let time = table.column_by_id(hypertable.time_column).expect("a hypertable keeps its time column");
    let window = Window::of(host, args, &time.ty)?;
    let catalog = host.catalog();
    let chunks = catalog.chunks(table.id).iter().filter(|chunk| window.holds(chunk)).cloned().collect();
    Ok((table, hypertable, chunks, window.is_open()))
}

pub(super) fn qualified(hypertable: &Hypertable, chunk: &ChunkDef) -> String {
    format!("{}.{}", hypertable.chunk_schema, chunk.name(hypertable))
}

pub fn show(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (_, hypertable, chunks, _) = selected(host, args)?;
    Ok(chunks.iter().map(|chunk| vec![Value::text(qualified(&hypertable, chunk))]).collect())
}

pub fn drop(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (table, hypertable, chunks, no_bounds) = selected(host, args)?;
    host.check_owner(&table)?;
    if no_bounds {
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "invalid time range for dropping chunks")
            .hint("At least one of older_than/newer_than or created_before/created_after must be provided."));
    }
    let mut rows = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let name = qualified(&hypertable, &chunk);
        if args.bool("verbose", false) {
            host.notice(Notice { severity: Severity::Info, ..Notice::notice(format!("dropping chunk {name}")) });
        }
        host.change(CatalogChange::DropChunk { table: table.id, chunk: chunk.id })?;
        rows.push(vec![Value::text(name)]);
    }
    Ok(rows)
}
