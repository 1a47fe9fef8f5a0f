//! The catalog everybody reads: the newest durable state, and the knowledge of which older ones are still being read.

use super::state::CatalogState;
use parking_lot::RwLock;
use proto::CommitSeq;
use std::sync::{Arc, Weak};

pub struct Catalog {
    versions: RwLock<Versions>,
}

struct Versions {
    current: Arc<CatalogState>,
    /// Earlier states that may still be in use, oldest first. Dead ones leave when a new state comes.
    earlier: Vec<(CommitSeq, Weak<CatalogState>)>,
}

impl Catalog {
    pub fn new(state: Arc<CatalogState>) -> Catalog {
        Catalog { versions: RwLock::new(Versions { current: state, earlier: Vec::new() }) }
    }

    pub fn current(&self) -> Arc<CatalogState> {
        Arc::clone(&self.versions.read().current)
    }

    /// Makes `state` the current one, unless a newer one is: states are cumulative, so the newest says it all.
    pub fn publish(&self, state: Arc<CatalogState>) {
        let mut versions = self.versions.write();
        if state.seq() <= versions.current.seq() {
            return;
        }
        let earlier = std::mem::replace(&mut versions.current, state);
        versions.earlier.retain(|(_, state)| state.strong_count() > 0);
        versions.earlier.push((earlier.seq(), Arc::downgrade(&earlier)));
    }

    /// No reader holds a state older than this one.
    pub fn oldest_in_use(&self) -> CommitSeq {
        let versions = self.versions.read();
        let mut held = versions.earlier.iter().filter(|(_, state)| state.strong_count() > 0);
        held.next().map_or(versions.current.seq(), |(seq, _)| *seq)
    }
}
