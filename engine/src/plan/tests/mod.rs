//! The planner against a cluster of in-memory nodes.

mod check;
mod cluster;
mod codec;
mod cuts;
mod equality;
mod explain;
mod gapfill;
mod joins;
mod latest;
mod leading;
mod prepare;
mod run;
mod runs;
mod sequence;
mod shuffle;
mod spilled;
mod target;
mod template;
