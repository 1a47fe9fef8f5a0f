//! COPY FROM STDIN and COPY TO STDOUT. Files of the server are nobody's to read or write.

use super::Session;
use super::parse::fold;
use super::query::rows_of;
use super::write::{Writing, target_columns, writable_table};
use crate::ingest::copy::{BinaryParser, BinaryWriter, CopyDirection, CopyForm, CopyWriter, ParallelParser};
use crate::pg::backend::{CopyBlock, CopyFormat, CopySink, CopyStream, Outcome, RowStream};
use crate::session::SharedTransaction;
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{CopySource, CopyTarget, Statement};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use engine::types::{Formatter, TimeContext};
use engine::{ColumnDef, TableDef};
use futures::StreamExt;
use proto::{Error, Result, SqlState};
use std::sync::Arc;

pub(super) async fn run(session: &mut Session, statement: &Statement) -> Result<Outcome> {
    let Statement::Copy { source, to, target, options, legacy_options, .. } = statement else {
        return Err(Error::internal("not a COPY"));
    };
    match target {
        CopyTarget::Stdin | CopyTarget::Stdout => {}
        _ => {
            return Err(Error::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                "permission denied to COPY to or from a file or a program",
            )
            .detail("The server reads and writes no files for its clients.")
            .hint("COPY to stdout or from stdin, or psql's \\copy command, work for anyone."));
        }
    }
    let direction = if *to { CopyDirection::To } else { CopyDirection::From };
    let form = CopyForm::parse(direction, options, legacy_options)?;
    match (to, source) {
        (true, source) => copy_out(session, source, form).await,
        (false, CopySource::Table { table_name, columns }) => {
            let names = columns.iter().map(fold).collect();
            copy_in(session, &super::define::object_name(table_name), names, form).await
        }
        (false, CopySource::Query(_)) => Err(Error::new(SqlState::SYNTAX_ERROR, "COPY from a query is not possible")),
    }
}

async fn copy_out(session: &mut Session, source: &CopySource, form: CopyForm) -> Result<Outcome> {
    let query = match source {
        CopySource::Query(query) => Statement::Query(query.clone()),
        CopySource::Table { table_name, columns } => {
            let columns = columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let columns = if columns.is_empty() { "*".to_owned() } else { columns };
            let sql = format!("SELECT {columns} FROM {table_name}");
            let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &sql).ok().and_then(|mut parsed| parsed.pop());
            parsed.ok_or_else(|| Error::internal("a SELECT of columns reads back"))?
        }
    };
    let (columns, stream) = rows_of(session, &query).await?;
    let context = TimeContext::of_session(&session.settings())?;
    let columns_count = columns.len();
    let (format, stream) = match form {
        CopyForm::Delimited(options) => {
            let typed = columns.iter().map(|column| (column.name.clone(), column.ty.clone())).collect();
            let writer = CopyWriter::new(options, typed, Formatter { zone: context.zone })?;
            let mut header = Vec::new();
            writer.write_header(&mut header);
            let write = move |batch: &RecordBatch, bytes: &mut _, ends: &mut _| writer.write_rows(batch, bytes, ends);
            (CopyFormat::Text, encoded(header, write, Vec::new(), stream))
        }
        CopyForm::Binary => {
            let writer = BinaryWriter::new(columns.iter().map(|column| column.ty.clone()).collect());
            let (header, trailer) = (writer.header(), writer.trailer());
            let write = move |batch: &RecordBatch, bytes: &mut _, ends: &mut _| writer.write_rows(batch, bytes, ends);
            (CopyFormat::Binary, encoded(header, write, trailer, stream))
        }
    };
    Ok(Outcome::CopyOut { columns_count, format, stream })
}

/// A header, the rows of each batch with one message per row, a trailer.
fn encoded(
    header: Vec<u8>,
    mut write: impl FnMut(&RecordBatch, &mut Vec<u8>, &mut Vec<usize>) -> Result<()> + Send + 'static,
    trailer: Vec<u8>,
    stream: RowStream,
) -> CopyStream {
    let alone = |bytes: Vec<u8>| (!bytes.is_empty()).then(|| Ok(block(bytes, Vec::new(), 0)));
    let rows = stream.map(move |batch| {
        let batch = batch?;
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(batch.num_rows()));
        write(&batch, &mut bytes, &mut ends)?;
        Ok(block(bytes, ends, batch.num_rows() as u64))
    });
    futures::stream::iter(alone(header)).chain(rows).chain(futures::stream::iter(alone(trailer))).boxed()
}

fn block(bytes: Vec<u8>, mut message_ends: Vec<usize>, rows_count: u64) -> CopyBlock {
    if message_ends.is_empty() && !bytes.is_empty() {
        message_ends.push(bytes.len());
    }
    CopyBlock { bytes: Bytes::from(bytes), message_ends, rows_count }
}

async fn copy_in(
    session: &mut Session,
    name: &(Option<String>, String),
    names: Vec<String>,
    form: CopyForm,
) -> Result<Outcome> {
    let table = writable_table(session, name, Writing::Insert).await?;
    let targets = target_columns(&table, names)?;
    let context = TimeContext::of_session(&session.settings())?;
    let defaults = defaults(session, &table, &targets).await?;
    let typed = targets.iter().map(|column| (column.name.clone(), column.ty.clone())).collect::<Vec<_>>();
    let input = match form {
        CopyForm::Delimited(options) => {
            let workers_max = std::thread::available_parallelism().map_or(1, usize::from);
            Input::Delimited(ParallelParser::new(options, typed, context, &table.name, workers_max)?)
        }
        CopyForm::Binary => Input::Binary(BinaryParser::new(&typed, context, &table.name)),
    };
    let transaction = session.transaction();
    Ok(Outcome::CopyIn(Box::new(Sink { table, targets, defaults, parser: Some(input), transaction, rows_count: 0 })))
}

/// What columns that the COPY does not name are filled with, by position in the table.
async fn defaults(session: &mut Session, table: &TableDef, targets: &[ColumnDef]) -> Result<Vec<Option<ScalarValue>>> {
    let mut values = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        let is_target = targets.iter().any(|target| target.id == column.id);
        values.push(match (&column.default, is_target) {
            (Some(default), false) => Some(super::utility::constant(session, default, &column.ty).await?),
            _ => None,
        });
    }
    Ok(values)
}

/// What turns the client's bytes into columns.
enum Input {
    Delimited(ParallelParser),
    Binary(BinaryParser),
}

struct Sink {
    table: Arc<TableDef>,
    targets: Vec<ColumnDef>,
    defaults: Vec<Option<ScalarValue>>,
    /// `None` once the end has been read.
    parser: Option<Input>,
    transaction: SharedTransaction,
    rows_count: u64,
}

impl Sink {
    async fn store(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        for batch in batches {
            let batch = self.completed(&batch)?;
            self.rows_count += self.transaction.lock().await.write(&self.table, batch).await?;
        }
        Ok(())
    }

    /// Every column of the table, in its order.
    fn completed(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let column = |(column, default): (&ColumnDef, &Option<ScalarValue>)| -> Result<ArrayRef> {
            match (self.targets.iter().position(|target| target.id == column.id), default) {
                (Some(position), _) => Ok(batch.column(position).clone()),
                (None, None) => Ok(new_null_array(&column.ty.arrow(), rows)),
                (None, Some(value)) => value.to_array_of_size(rows).map_err(|e| Error::internal(e.to_string())),
            }
        };
        let columns = self.table.columns.iter().zip(&self.defaults).map(column).collect::<Result<Vec<_>>>()?;
        let fields = self.table.columns.iter().map(|column| column.field().with_nullable(true)).collect::<Vec<_>>();
        let whole = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        whole.map_err(|error| Error::internal(error.to_string()))
    }
}

#[async_trait]
impl CopySink for Sink {
    fn columns_count(&self) -> usize {
        self.targets.len()
    }

    fn format(&self) -> CopyFormat {
        match self.parser {
            Some(Input::Binary(_)) => CopyFormat::Binary,
            _ => CopyFormat::Text,
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let batches = match &mut self.parser {
            Some(Input::Delimited(parser)) => parser.push(&bytes).await?,
            Some(Input::Binary(parser)) => parser.push(&bytes)?,
            None => Vec::new(),
        };
        self.store(batches).await
    }

    async fn finish(mut self: Box<Self>) -> Result<u64> {
        match self.parser.take() {
            Some(Input::Delimited(mut parser)) => loop {
                let batches = parser.finish().await?;
                if batches.is_empty() {
                    break;
                }
                self.store(batches).await?;
            },
            Some(Input::Binary(parser)) => self.store(parser.finish()?.into_iter().collect()).await?,
            None => {}
        }
        if !self.table.keys.is_empty() {
            self.transaction.lock().await.settle().await?;
        }
        Ok(self.rows_count)
    }
}
