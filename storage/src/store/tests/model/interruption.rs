//! How a life is interrupted, and what must be true when it goes on.

use super::*;
use crate::vfs::Fault;
use std::collections::BTreeSet;

impl Life {
    /// Between two steps.
    pub(super) fn restart(&mut self) {
        let store = self.store.take().expect("it is open between two steps");
        match self.dice.below(3) {
            0 => {
                store.close().unwrap();
                drop(store);
                self.counts.add("clean restart");
            }
            killed => {
                if killed == 1 {
                    self.vfs.kill_process()
                } else {
                    self.vfs.restart()
                }
                // Its handles are dead: what its destructor tries comes to nothing.
                drop(store);
                self.counts.add(if killed == 1 { "kill" } else { "power cut" });
            }
        }
        self.come_back();
    }

    fn come_back(&mut self) {
        self.open();
        self.twin.staged.clear();
        self.twin.in_doubt = self.twin.prepared.keys().copied().collect();
        let in_doubt = self.store().status().in_doubt.iter().map(|txn| txn.number).collect::<BTreeSet<_>>();
        for id in self.twin.aborted.intersection(&in_doubt) {
            self.store().abort(txn(*id)).unwrap();
        }
        let in_doubt = in_doubt.difference(&self.twin.aborted).copied().collect::<BTreeSet<_>>();
        assert_eq!(in_doubt, self.twin.in_doubt);
    }

    /// While something is being done: it happened or not, and the store knows which.
    pub(super) fn cut_power_within(&mut self) {
        self.vfs.set_fault(Fault::Crash(self.dice.below(9)));
        let store = self.store.take().expect("it is open between two steps");
        let what = match self.dice.below(8) {
            0 => {
                let rows = (0..20).map(|_| self.dice.row(0)).collect::<Vec<_>>();
                let outcome =
                    (0..30).try_for_each(|_| store.stage(txn(self.number + 1), SubTxn::FIRST, vec![write(0, &rows)]));
                assert!(outcome.is_err(), "the disk or the chunk is gone");
                self.number += 1;
                "stage"
            }
            1 => {
                if let Some(id) = pick(&mut self.dice, &self.twin.staged) {
                    let voted = store.prepare(txn(id)).is_ok();
                    if voted {
                        let work = self.twin.staged.remove(&id).unwrap();
                        self.twin.prepared.insert(id, work);
                    }
                }
                "prepare"
            }
            2 => {
                self.seq += 1;
                if let Some(id) = pick(&mut self.dice, &self.twin.staged)
                    && store.commit(txn(id), CommitSeq(self.seq), CommitMode::OnePhase).is_ok()
                {
                    self.twin.commit(id, self.seq);
                }
                "commit"
            }
            3 => {
                self.seq += 1;
                if let Some(id) = pick(&mut self.dice, &self.twin.prepared)
                    && store.commit(txn(id), CommitSeq(self.seq), CommitMode::Prepared).is_ok()
                {
                    self.twin.commit(id, self.seq);
                }
                "commit"
            }
            4 => {
                if let Some(id) = pick(&mut self.dice, &self.twin.staged) {
                    let mut work = self.twin.staged[&id].clone();
                    let subs = work.take_back(&mut self.dice);
                    if store.discard(txn(id), subs).is_ok() {
                        self.twin.staged.insert(id, work);
                        let _ = store.prepare(txn(id));
                    }
                }
                "discard"
            }
            5 => {
                let _ = (0..CHUNKS as u32).try_for_each(|chunk| store.seal(ChunkId(chunk)).map(drop));
                "seal"
            }
            6 => {
                let wanted = self.any_layout();
                let _ = (0..CHUNKS as u32).try_for_each(|chunk| store.seal_sorted(ChunkId(chunk), &wanted));
                "reorder"
            }
            _ => {
                self.age();
                let _ = store.merge_due();
                "merge"
            }
        };
        if self.vfs.crashed() {
            self.counts.add(format!("power cut within {what}"));
        }
        self.vfs.restart();
        drop(store);
        self.learn();
        self.come_back();
    }

    /// Asks how the transactions ended that were at work when power went.
    fn learn(&mut self) {
        self.open();
        let store = self.store.take().expect("just opened");
        let open = self.twin.staged.keys().chain(self.twin.prepared.keys()).copied().collect::<Vec<_>>();
        for id in open {
            match store.outcome(txn(id)).unwrap() {
                proto::TxnOutcome::Committed(seq) => {
                    assert_eq!(seq, CommitSeq(self.seq), "only the last commit was not answered");
                    self.twin.commit(id, seq.0);
                }
                proto::TxnOutcome::Prepared if self.twin.staged.contains_key(&id) => {
                    let work = self.twin.staged.remove(&id).unwrap();
                    self.twin.prepared.insert(id, work);
                }
                _ => {}
            }
        }
        self.vfs.kill_process();
        drop(store);
    }
}
