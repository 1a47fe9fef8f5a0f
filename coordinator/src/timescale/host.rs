//! The functions as a catalog query calls them: bind the arguments, run, return rows. Calls are synchronous; what needs
//! a node waits for it here, on a thread that may wait.

use super::policies::{self, Kind};
use super::signature::{self, Bound};
use super::{chunks, compress, hypertable, jobs, nodes, server, sizes};
use crate::catalog::{CatalogChange, CatalogState};
use crate::pg::backend::Notice;
use crate::pgcatalog::{Argument, Functions, Row, Signature};
use crate::session::{Session, System, qualified_name};
use engine::{ChunkDef, Hypertable, TableDef};
use proto::{ChunkId, Error, NodeName, Result, SqlState};
use std::future::Future;
use std::sync::Arc;

/// Signatures without a session, for describing statements.
pub(crate) struct Known;

impl Functions for Known {
    fn signature(&self, _: Option<&str>, name: &str) -> Option<Signature> {
        signature::signature(name)
    }

    fn call(&mut self, _: Option<&str>, name: &str, _: &[Argument]) -> Result<Vec<Row>> {
        Err(Error::internal(format!("function {name} was called while a statement was described")))
    }
}

pub(crate) struct Host<'a> {
    pub(super) session: &'a mut Session,
    pub(super) system: &'a System,
}

/// Runs `work` with the session's functions on a thread that may wait.
pub(crate) async fn with_host<T>(
    session: &mut Session,
    work: impl FnOnce(&System, &mut Host<'_>) -> Result<T>,
) -> Result<T> {
    let catalog = session.catalog().await;
    let system = System::new(session, catalog);
    tokio::task::block_in_place(|| work(&system, &mut Host { session, system: &system }))
}

impl Functions for Host<'_> {
    fn signature(&self, _: Option<&str>, name: &str) -> Option<Signature> {
        signature::signature(name)
    }

    fn call(&mut self, _: Option<&str>, name: &str, args: &[Argument]) -> Result<Vec<Row>> {
        if signature::is_refused(name) {
            return Err(Error::unsupported(format!("function {name}")));
        }
        let Some(function) = signature::find(name) else {
            return Err(Error::internal(format!("function {name} has no signature")));
        };
        let bound = signature::bind(function, args)?;
        self.dispatch(name, &bound)
    }
}

impl Host<'_> {
    fn dispatch(&mut self, name: &str, args: &Bound<'_>) -> Result<Vec<Row>> {
        match name {
            "add_data_node" => nodes::add(self, args),
            "delete_data_node" => nodes::delete(self, args),
            "ping_data_node" => nodes::ping(self, args),
            "distributed_exec" => nodes::distributed_exec(self, args),
            "create_distributed_hypertable" => hypertable::create(self, args, true),
            "create_hypertable" => hypertable::create(self, args, args.bool("distributed", true)),
            "add_dimension" => hypertable::add_dimension(self, args),
            "by_range" => hypertable::by_range(args),
            "by_hash" => hypertable::by_hash(args),
            "set_chunk_time_interval" => hypertable::set_chunk_time_interval(self, args),
            "set_number_partitions" => hypertable::set_number_partitions(self, args),
            "set_replication_factor" => hypertable::set_replication_factor(self, args),
            "show_chunks" => chunks::show(self, args),
            "drop_chunks" => chunks::drop(self, args),
            "compress_chunk" => compress::compress(self, args),
            "decompress_chunk" => compress::decompress(self, args),
            "hypertable_compression_stats" => compress::hypertable_stats(self, args),
            "chunk_compression_stats" => compress::chunk_stats(self, args),
            "add_retention_policy" => policies::add(self, args, Kind::Retention),
            "remove_retention_policy" => policies::remove_retention(self, args),
            "add_compression_policy" => policies::add(self, args, Kind::Compression),
            "remove_compression_policy" => policies::remove_compression(self, args),
            "alter_job" => jobs::alter(self, args),
            "delete_job" => jobs::delete(self, args),
            "run_job" => jobs::run(self, args),
            "hypertable_size" => sizes::hypertable(self, args),
            "hypertable_index_size" => sizes::index(),
            "hypertable_detailed_size" => sizes::detailed(self, args),
            "hypertable_data_node_relation_size" => sizes::by_node(self, args),
            "chunks_detailed_size" => sizes::chunks(self, args),
            "approximate_row_count" => sizes::rows(self, args),
            "set_config" => server::set_config(self, args),
            "pg_cancel_backend" => server::cancel(self, args),
            "pg_terminate_backend" => server::terminate(self, args),
            _ => Err(Error::internal(format!("function {name} is listed and not served"))),
        }
    }

    /// Waits for what needs a node; the thread was given up for it.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::runtime::Handle::current().block_on(work)
    }

    /// As the transaction sees it now, own changes included.
    pub(super) fn catalog(&mut self) -> Arc<CatalogState> {
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(self.session.catalog())
    }

    pub(super) fn change(&mut self, change: CatalogChange) -> Result<()> {
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(self.session.change(change))
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.session.notice(notice);
    }

    /// A table as a `regclass` argument names it.
    ///
    /// # Errors
    /// `42P01 relation "x" does not exist`, `42809` for a view.
    pub(super) fn table(&mut self, name: Option<&str>) -> Result<Arc<TableDef>> {
        let catalog = self.catalog();
        let name = name.ok_or_else(|| Error::new(SqlState::INVALID_PARAMETER_VALUE, "relation cannot be NULL"))?;
        self.session.table_named(&catalog, name)
    }

    /// # Errors
    /// As `table`; `TS001` for a table that is no hypertable.
    pub(super) fn hypertable(&mut self, name: Option<&str>) -> Result<(Arc<TableDef>, Hypertable)> {
        let table = self.table(name)?;
        match table.hypertable.clone() {
            Some(hypertable) => Ok((table, hypertable)),
            None => {
                Err(Error::new(SqlState::HYPERTABLE_NOT_EXIST, format!("table \"{}\" is not a hypertable", table.name)))
            }
        }
    }

    /// A chunk as a `regclass` argument names it.
    ///
    /// # Errors
    /// `42P01 relation "x" does not exist`, `42704` for a relation that is no chunk.
    pub(super) fn chunk(&mut self, name: Option<&str>) -> Result<(Arc<TableDef>, Hypertable, Arc<ChunkDef>)> {
        let catalog = self.catalog();
        let name = name.ok_or_else(|| Error::new(SqlState::INVALID_PARAMETER_VALUE, "chunk cannot be NULL"))?;
        let (schema, chunk) = qualified_name(name)?;
        let database = self.session.database();
        let found = catalog.tables().filter(|table| table.database == database).find_map(|table| {
            let hypertable = table.hypertable.as_ref()?;
            let number = chunk.strip_prefix(&hypertable.chunk_prefix)?.strip_prefix('_')?.strip_suffix("_chunk")?;
            let id = ChunkId(number.parse().ok()?);
            let chunk = catalog.chunks(table.id).get(id)?;
            let named = schema.as_ref() == Some(&hypertable.chunk_schema);
            named.then(|| (table.clone(), hypertable.clone(), chunk.clone()))
        });
        match found {
            Some(found) => Ok(found),
            None => Err(match self.session.table_named(&catalog, name) {
                Ok(_) => Error::new(SqlState::UNDEFINED_OBJECT, "chunk not found")
                    .detail(format!("\"{name}\" is not a chunk.")),
                Err(error) => error,
            }),
        }
    }

    /// # Errors
    /// `42501` for anyone but a superuser.
    pub(super) fn check_superuser(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Handle::current();
        match runtime.block_on(self.session.is_superuser()) {
            true => Ok(()),
            false => Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, "must be superuser to add or remove data nodes")),
        }
    }

    pub(super) fn check_owner(&mut self, table: &TableDef) -> Result<()> {
        self.session.check_writable("this function")?;
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(self.session.check_owner(table))
    }

    /// No chunk of it holds a row, as far as this transaction knows.
    pub(super) fn is_empty(&mut self, table: &TableDef) -> bool {
        self.catalog().chunks(table.id).is_empty()
    }

    pub(super) fn node_names(&mut self) -> Vec<NodeName> {
        self.catalog().nodes().map(|node| node.name.clone()).collect()
    }

    /// The nodes on which the session's role may place chunks.
    pub(super) fn usable_nodes(&mut self) -> Vec<NodeName> {
        let catalog = self.catalog();
        let user = self.session.current_user();
        let usable = catalog.nodes().filter(|node| node.available && catalog.may_use_node(user, node));
        usable.map(|node| node.name.clone()).collect()
    }
}
