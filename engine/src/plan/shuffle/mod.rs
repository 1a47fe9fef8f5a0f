//! Joins whose rows meet on the data nodes although nobody placed them together: every node sends the rows of both sides
//! to the node that the hash of their keys names, and each node joins what it got.
//!
//! 1. `cut` decides, and puts two leaves under the join ([`ShuffledRows`]); what was below them are fragments of their own,
//!    which publish their rows. `start` has the nodes run these, before the join's own fragment leaves.
//! 2. On a node, `publish` spreads the rows of a fragment over numbered partitions, by DataFusion's own exchange, and
//!    holds them for whoever fetches them.
//! 3. `fetch` stands where the leaf stood: it asks all who publish for its partition.
//!
//! Which node a row goes to. The exchange has `nodes × width` partitions, by the very hash by which DataFusion spreads rows
//! inside a process: `hash % (nodes * width)`. Node `n` takes the partitions from `n * width` on, so its own partition
//! `p` holds exactly the rows that DataFusion's exchange of that width would put there (`hash % width == p`): whatever
//! else of the plan relies on that exchange stays right.
//!
//! Why nobody waits for ever. Suppose a reader waits for rows of an exchange. Then its partition is empty at some
//! producer that has not ended, and DataFusion's exchange holds its inputs up only while no partition is empty: so that
//! producer goes on, whatever other readers do, until it waits for rows itself, of an exchange below it. Below the last are
//! scans, which wait for nobody: fragments of a shuffle take no turns (`turn`), and streams between nodes share no
//! window that those which rest could use up (`proto::wire`). In what order a reader takes its inputs plays no part.
//!
//! What that costs. Rows for readers that are busy elsewhere pile up while another reads on. They count as memory of
//! the query and spill, as in DataFusion's exchanges; when all readers rest, so do the scans.
//!
//! Nothing outlives a statement: it holds the stream of every fragment that publishes, and dropping one drops the rows.

mod cut;
mod fetch;
mod leaf;
mod publish;
mod start;

pub(super) use fetch::{FetchExec, Sources};
pub(super) use leaf::{ShuffledFrom, ShuffledRows};
pub(super) use publish::publish;
pub(super) use start::{LateInput, Started, start};
