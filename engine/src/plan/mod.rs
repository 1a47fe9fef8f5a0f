//! From a statement to running fragments.
//!
//! The life of a SELECT:
//! 1. `Engine::prepare`: `prepare::Planner` turns the syntax tree into a logical plan; relations are looked up by name
//!    in the session's [`Relations`], views are planned in place, parameters get types.
//! 2. `Engine::run`: values replace parameters; DataFusion optimises and makes a physical plan. On the way
//!    `provider::HypertableProvider::scan` excludes chunks (`bounds`) and leaves a `scan::ChunkScan`.
//!    `latest` tells scans of which only the last rows are wanted, `leading` those of which only the first in time.
//!    A statement that runs again takes a `template`: the physical plan of a former run, whose constants are exchanged
//!    (`parameter`); one that reads little runs in one partition (`light`).
//! 3. `fragment::fragment` cuts the plan: what can run where the rows are (`shards`) is encoded (`codec`) and replaced
//!    by an `exchange::RemoteExec`. Joins are cut by `joining`, as `join` allows, or by `shuffle`, when nodes are to send
//!    each other rows; `check` refuses what would join wrongly.
//! 4. Executing the rest on the coordinator makes each `RemoteExec` call `DataNode::execute` on its nodes. Some wait for
//!    rows (`collected`, put into the plan where `sent` stood) or results (`subquery`) that go along, or that tell
//!    which values a scan can skip (`trace`): `late` puts them in.
//! 5. There, [`Executor::start`] decodes the fragment, `bind` puts chunks under its scans, `node` puts operators that know
//!    how rows lie in place of DataFusion's, and batches stream back.
//!
//! What keeps one query from hurting the others: `memory` and `spill` (what they may keep), `turn` (who reads next on a
//! node), `pace` (joins that can be stopped), `workers` (threads of their own), `attempt` (merge joins, which spill, where
//! hash joins find no memory).
//!
//! UPDATE, DELETE and ON CONFLICT are SELECTs too, which yield the addresses of rows ([`target`]).
//!
//! It is not a catalog, not a store, and takes no snapshot: all of these come in through [`QueryContext`] and
//! [`ChunkStore`].

mod attempt;
mod bind;
mod bounds;
mod check;
mod codec;
mod collected;
mod context;
mod cursor;
mod engine;
mod error;
mod exchange;
mod execute;
mod explain;
mod fragment;
mod join;
mod joining;
mod late;
mod latest;
mod leading;
mod light;
mod marks;
mod memory;
mod metrics;
mod node;
mod output;
mod pace;
mod parameter;
mod prepare;
mod provider;
mod scan;
mod sent;
mod shards;
mod shuffle;
mod spill;
mod stack;
mod store;
mod subquery;
pub mod target;
mod template;
mod trace;
mod turn;
mod workers;

#[cfg(test)]
mod tests;

pub use context::{Nodes, QueryContext, Relation, Relations};
pub use engine::{Engine, Memory, Prepared, QueryResult};
pub use execute::{EngineOptions, Executor};
pub use explain::{ExplainOptions, Explained, PlanNode, Title, Value};
pub use output::OutputColumn;
pub use spill::Spill;
pub use store::{ChunkRequest, ChunkRows, ChunkStore, ScanColumn};
pub use turn::{Turn, Turns};
pub use workers::{Task, Workers};
