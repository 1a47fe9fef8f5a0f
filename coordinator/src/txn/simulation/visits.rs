//! A leader and its nodes: it looks after those that are up, and brings up those that are not, as `txn::handshake` does.

use super::app::{Happening, Transactions};
use super::calls::{Asked, Purpose};
use super::ledger::CLUSTER;
use super::node::Request;
use crate::raft::simulation::world::World;
use crate::txn::handshake::core::{self as handshake, Action, Recovery, check_identity, never_decided, overdue};
use crate::txn::owed::Running;
use crate::txn::planted::InSimulation;
use proto::{CommitMode, NodeName, NodeStatus};
use std::sync::Arc;

const WATCH_MS: u64 = 300;

impl World<Transactions> {
    pub(super) fn watch(&mut self, member: usize, epoch: u64) {
        let Some(reign) = self.reign(member).filter(|reign| reign.epoch == epoch) else { return };
        let nodes = reign.catalog.nodes().cloned().collect::<Vec<_>>();
        for def in nodes {
            let Some(reign) = self.reign(member) else { return };
            let link = reign.links.entry(def.name.clone()).or_default();
            if !def.available {
                link.up = false;
            }
            if link.checked || !def.available {
                continue;
            }
            link.checked = true;
            let (up, before) = (link.up, reign.running.clone());
            let purpose = if up { Purpose::Hello { before } } else { Purpose::Greet { before } };
            self.call(member, &def.name, up, Request::Hello, purpose);
        }
        self.finish_commits(member);
        self.after_app(WATCH_MS, Happening::Watch { member, epoch });
    }

    pub(super) fn checked(&mut self, member: usize, node: &NodeName) {
        let reign = self.app.reigns[member].as_mut().expect("it looked");
        let link = reign.links.entry(node.clone()).or_default();
        (link.checked, link.recovery) = (false, None);
    }

    /// As `Cluster::settle_up`.
    pub(super) fn settle_up(&mut self, member: usize, node: &NodeName, before: &Running, status: &NodeStatus) {
        let plan = self.app.plan;
        let reign = self.app.reigns[member].as_mut().expect("it looked");
        let strays = never_decided(status, before, (CLUSTER, reign.epoch), &reign.owed, plan);
        let owed = reign.owed.aborts_of(node);
        let pushed = overdue(reign.owed.commits_of(node), reign.epoch, &reign.running);
        for txn in strays {
            self.app.counts.count("in doubt at a node that is up");
            self.call(member, node, true, Request::Abort(txn), Purpose::Stray);
        }
        for txn in owed {
            self.call(member, node, true, Request::Abort(txn), Purpose::OwedAbort(txn));
        }
        for (txn, seq) in pushed {
            self.call(member, node, true, Request::Commit(txn, seq, CommitMode::Prepared), Purpose::Push(txn));
        }
        self.checked(member, node);
    }

    /// As `Cluster::bring_up`, from here on.
    pub(super) fn greet(&mut self, member: usize, node: &NodeName, before: Running, status: &NodeStatus) {
        let reign = self.app.reigns[member].as_mut().expect("it looked");
        let epoch = reign.epoch;
        let def = Arc::clone(reign.catalog.node(node).expect("nodes are not removed"));
        if check_identity(&def, status, (CLUSTER, epoch)).is_err() {
            self.app.counts.count("node follows a newer coordinator");
            return self.checked(member, node);
        }
        self.call(member, node, false, Request::Obey { epoch }, Purpose::Obey { before });
    }

    pub(super) fn begin_recovery(&mut self, member: usize, node: &NodeName, before: &Running, status: &NodeStatus) {
        let (plan, reuse) = (self.app.plan, self.app.planted(InSimulation::ReuseSequences));
        let reign = self.app.reigns[member].as_mut().expect("it looked");
        if !reuse {
            reign.sequence.raise_to(status.commit_seq_max);
        }
        let mut recovery = Recovery::begin(node, (CLUSTER, reign.epoch), status, before, plan);
        let action = recovery.start(&mut reign.owed);
        reign.links.entry(node.clone()).or_default().recovery = Some(recovery);
        self.act(member, node, action);
    }

    pub(super) fn recover(&mut self, member: usize, node: &NodeName, input: handshake::Input) {
        let reign = self.app.reigns[member].as_mut().expect("it asked");
        let link = reign.links.entry(node.clone()).or_default();
        let action = link.recovery.as_mut().expect("it is under way").step(input, &mut reign.owed);
        self.act(member, node, action);
    }

    pub(super) fn act(&mut self, member: usize, node: &NodeName, action: Action) {
        self.note(format_args!("{member} to {node}: {action:?}"));
        let (request, asked) = match action {
            Action::Abort(txn) => {
                self.app.counts.count("aborted by a handshake");
                (Request::Abort(txn), Asked::Abort)
            }
            Action::Ask(txn) => (Request::Outcome(txn), Asked::Outcome),
            Action::Commit(txn, seq) => {
                self.app.counts.count("decision told by a handshake");
                (Request::Commit(txn, seq, CommitMode::Prepared), Asked::Commit)
            }
            Action::Up => {
                self.app.counts.count("node came up");
                let reign = self.app.reigns[member].as_mut().expect("it looked");
                let link = reign.links.entry(node.clone()).or_default();
                link.up = true;
                link.generation += 1;
                for txn in reign.owed.aborts_of(node) {
                    self.call(member, node, true, Request::Abort(txn), Purpose::OwedAbort(txn));
                }
                return self.checked(member, node);
            }
            Action::Stay(_) => return self.checked(member, node),
        };
        self.call(member, node, false, request, Purpose::Recover(asked));
    }
}
