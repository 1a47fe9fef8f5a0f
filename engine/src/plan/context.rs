//! What a statement needs from the outside: relations by name, nodes by name, a snapshot. The coordinator's session
//! implements the traits; nothing here keeps a catalog.

use super::target::Narrowing;
use crate::{ChunkDef, Settings, TableDef};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use proto::{CommitSeq, DataNode, NodeAddress, NodeName, QueryId, Result, TxnId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The coordinator's registry of data nodes.
pub trait Nodes: Send + Sync {
    /// # Errors
    /// When there is no such node, or it is known to be unreachable.
    fn node(&self, name: &NodeName) -> Result<Arc<dyn DataNode>>;

    /// Where these nodes find each other, in this order; `None` when they cannot.
    fn addresses(&self, names: &[NodeName]) -> Option<Vec<NodeAddress>> {
        _ = names;
        None
    }
}

/// Finds a relation as a statement names it; without a schema, along the session's search path.
pub trait Relations: Send + Sync {
    fn relation(&self, schema: Option<&str>, name: &str) -> Option<Relation>;
}

#[derive(Clone)]
pub enum Relation {
    /// `chunks` must hold every chunk with rows visible at the statement's snapshot.
    Table {
        def: Arc<TableDef>,
        chunks: Arc<Vec<Arc<ChunkDef>>>,
    },
    View {
        sql: String,
    },
    /// A catalog view, materialised by the caller.
    Rows(RecordBatch),
    /// A table whose rows are to be changed: like `Table`, with the addresses of its rows (`target::ADDRESS`).
    Target {
        def: Arc<TableDef>,
        chunks: Arc<Vec<Arc<ChunkDef>>>,
        /// Only these rows are wanted.
        only: Arc<Vec<Narrowing>>,
    },
    /// Rows of `def` that were changed, for RETURNING (`target::CHANGED`). Columns with a column id are the table's.
    Changed {
        def: Arc<TableDef>,
        schema: SchemaRef,
        batches: Arc<Vec<RecordBatch>>,
    },
}

impl Relation {
    /// The table it is or stands for.
    pub fn table(&self) -> Option<&Arc<TableDef>> {
        match self {
            Relation::Table { def, .. } | Relation::Target { def, .. } | Relation::Changed { def, .. } => Some(def),
            Relation::View { .. } | Relation::Rows(_) => None,
        }
    }
}

/// One statement's view of the world.
#[derive(Clone)]
pub struct QueryContext {
    pub settings: Settings,
    pub relations: Arc<dyn Relations>,
    pub nodes: Arc<dyn Nodes>,
    pub snapshot: CommitSeq,
    /// The session's open transaction, whose own rows the statement sees.
    pub txn: Option<TxnId>,
    pub query: QueryId,
}

/// Rides in DataFusion's session config, so that a table provider and a `RemoteExec` reach their statement.
pub(super) struct Scope {
    pub context: QueryContext,
    relations: Mutex<HashMap<RelationName, Option<Relation>>>,
    next_scan: AtomicU32,
}

/// A relation as the statement spelled it.
pub(super) type RelationName = (Option<String>, String);

impl Scope {
    pub fn new(context: &QueryContext) -> Scope {
        Scope { context: context.clone(), relations: Mutex::default(), next_scan: AtomicU32::new(0) }
    }

    /// What was looked up already stays so; everything else is the new context's.
    pub fn continued(&self, context: &QueryContext) -> Scope {
        Scope { relations: Mutex::new(self.relations.lock().clone()), ..Scope::new(context) }
    }

    /// Looks a relation up once per statement, so that its parts cannot disagree about what a name means.
    pub fn relation(&self, name: &RelationName) -> Option<Relation> {
        let mut relations = self.relations.lock();
        let found = relations.entry(name.clone());
        found.or_insert_with(|| self.context.relations.relation(name.0.as_deref(), &name.1)).clone()
    }

    /// Names and meanings of all relations the statement asked for so far.
    pub fn used(&self) -> Vec<(RelationName, Relation)> {
        let relations = self.relations.lock();
        relations.iter().filter_map(|(name, found)| Some((name.clone(), found.clone()?))).collect()
    }

    /// Numbers the scans of a plan, and what else its fragments read.
    pub fn next_scan(&self) -> u32 {
        self.next_scan.fetch_add(1, Ordering::Relaxed)
    }
}
