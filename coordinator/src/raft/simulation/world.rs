//! Three members, the network between them, an app on them, and misfortune, on one clock from one seed.

use super::app::App;
use super::dice::Dice;
use super::member::{Member, Process, Work};
use super::network::{MEMBERS, Network};
use super::tally::{Event as Counted, Tally};
use super::trouble::{Rates, Trouble};
use crate::raft::core::{After, Apply, Input, Persist, Role};
use crate::raft::disk::Durable;
use crate::raft::planted::Plan;
use raft::prelude::Message;
use std::collections::BTreeMap;
use std::fmt::Write;
use storage::StorageError;

/// Trouble lasts this long …
pub(crate) const TROUBLE_MS: u64 = 45_000;
/// … and this long after it service must be back.
const RECOVERY_MS_MAX: u64 = 10_000;
/// Then everybody has this long to become equal.
const SETTLE_MS: u64 = 5_000;
/// Recoveries that may be interrupted in a row.
const INTERRUPTED_STARTS_MAX: u64 = 5;

pub(crate) enum Happening<H> {
    Tick {
        member: usize,
        start: u64,
    },
    Arrival {
        to: usize,
        message: Box<Message>,
    },
    Written {
        member: usize,
        start: u64,
    },
    /// The app's own.
    App(H),
    Trouble,
    /// Trouble that ends.
    Relief(Trouble),
    Start {
        member: usize,
        attempt: u64,
    },
}

pub(crate) struct World<A: App> {
    pub(crate) now_ms: u64,
    pub(crate) dice: Dice,
    pub(crate) network: Network,
    pub(crate) members: Vec<Member<A>>,
    pub(crate) tally: Tally,
    pub(crate) rates: Rates,
    pub(crate) app: A,
    plan: Plan,
    queue: BTreeMap<(u64, u64), Happening<A::Happening>>,
    happenings_count: u64,
    /// Trouble has ended.
    pub(crate) healed: bool,
    trace: Option<String>,
}

impl<A: App> World<A> {
    pub(crate) fn new(seed: u64, plan: Plan, app: A, traced: bool) -> World<A> {
        let mut dice = Dice::new(seed);
        let network = Network::new(&mut dice, A::SITES);
        let rates = Rates::new(&mut dice);
        let members = (0..MEMBERS).map(|_| Member::new(dice.roll())).collect();
        World {
            now_ms: 0,
            dice,
            network,
            members,
            tally: Tally::default(),
            rates,
            app,
            plan,
            queue: BTreeMap::new(),
            happenings_count: 0,
            healed: false,
            trace: traced.then(String::new),
        }
    }

    /// Trouble, recovery, end. Panics when a promise is broken.
    pub(crate) fn live(&mut self) {
        (0..MEMBERS).for_each(|member| self.start(member, 0));
        A::begin(self);
        self.after(1, Happening::Trouble);
        self.run_until(TROUBLE_MS, |_| false);
        self.heal();
        self.run_until(TROUBLE_MS + RECOVERY_MS_MAX, |world| A::recovered(world));
        assert!(A::recovered(self), "service was not back within 10 seconds after the last fault");
        // So that everybody can catch up.
        A::rest(self);
        self.run_until(self.now_ms + SETTLE_MS, |_| false);
        A::conclude(self);
    }

    /// All that happened, a line each; empty unless asked for.
    pub(crate) fn trace(&self) -> &str {
        self.trace.as_deref().unwrap_or_default()
    }

    fn run_until(&mut self, end_ms: u64, done: impl Fn(&World<A>) -> bool) {
        while !done(self) {
            let Some(next) = self.queue.first_entry().filter(|next| next.key().0 < end_ms) else { break };
            self.now_ms = next.key().0;
            let happening = next.remove();
            self.happen(happening);
        }
        if !done(self) {
            self.now_ms = end_ms;
        }
    }

    pub(crate) fn after(&mut self, delay_ms: u64, happening: Happening<A::Happening>) {
        self.happenings_count += 1;
        self.queue.insert((self.now_ms + delay_ms, self.happenings_count), happening);
    }

    pub(crate) fn after_app(&mut self, delay_ms: u64, happening: A::Happening) {
        self.after(delay_ms, Happening::App(happening));
    }

    /// These will not happen.
    pub(crate) fn cancel(&mut self, which: impl Fn(&A::Happening) -> bool) {
        self.queue.retain(|_, happening| !matches!(happening, Happening::App(happening) if which(happening)));
    }

    fn happen(&mut self, happening: Happening<A::Happening>) {
        match happening {
            Happening::Tick { member, start } => self.tick(member, start),
            Happening::Arrival { to, message } => {
                self.members[to].receive(Input::Message(*message));
                self.work(to);
            }
            Happening::Written { member, start } => self.written(member, start),
            Happening::App(happening) => A::happen(self, happening),
            Happening::Trouble => self.trouble(),
            Happening::Relief(trouble) => self.relieve(trouble),
            Happening::Start { member, attempt } => self.start(member, attempt),
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // A member's life

    pub(crate) fn start(&mut self, member: usize, attempt: u64) {
        let plan = self.plan;
        let seed = self.dice.roll();
        let interrupt = attempt > 0 && attempt < INTERRUPTED_STARTS_MAX && !self.healed;
        if interrupt && self.dice.percent(self.rates.interrupted_start_percent) {
            let at = self.dice.between(0, 6);
            self.members[member].vfs.set_fault(storage::vfs::Fault::Crash(at));
        }
        let genesis = self.app.genesis();
        match self.members[member].start(member, seed, plan, genesis) {
            Ok(()) => {
                self.members[member].vfs.heal();
                let process = self.members[member].process.as_ref().expect("just started");
                let (applied, last) = (process.applied, process.core.entries().last());
                self.note(format_args!("{member} starts with {applied} applied and {last} last"));
                A::restored(self, member);
                let start = self.members[member].starts_count;
                let delay_ms = self.dice.between(0, 100);
                self.after(delay_ms, Happening::Tick { member, start });
                self.work(member);
            }
            Err(error) if error.is_disk_full() => {
                self.tally.count(Counted::DiskFull);
                self.members[member].vfs.kill_process();
                self.after(100, Happening::Start { member, attempt: attempt + 1 });
            }
            Err(error) => {
                assert!(self.members[member].vfs.crashed(), "member {member} cannot start: {error}");
                self.tally.count(Counted::PowerLostInRecovery);
                self.members[member].vfs.restart();
                self.after(10, Happening::Start { member, attempt: attempt + 1 });
            }
        }
    }

    /// The process is gone. `power` takes with it what was not synced.
    pub(crate) fn stop(&mut self, member: usize, power: bool) {
        let at = &mut self.members[member];
        if at.process.take().is_none() {
            return;
        }
        at.paused = false;
        match power {
            true => at.vfs.restart(),
            false => at.vfs.kill_process(),
        }
        self.note(format_args!("{member} stops"));
        if self.members.iter().filter(|member| member.process.is_some()).count() < 2 {
            self.tally.count(Counted::QuorumGone);
        }
        let delay_ms = if self.healed { 1 } else { self.dice.between(1, self.rates.down_ms_max) };
        self.after(delay_ms, Happening::Start { member, attempt: 1 });
        A::stopped(self, member);
    }

    fn tick(&mut self, member: usize, start: u64) {
        let at = &mut self.members[member];
        if at.starts_count != start || at.process.is_none() {
            return;
        }
        let tick_ms = at.tick_ms;
        // A process that was stopped for a while does not make up for the ticks it missed.
        if !at.paused {
            at.receive(Input::Tick);
            self.work(member);
        }
        self.after(tick_ms, Happening::Tick { member, start });
    }

    /// As many rounds as the inputs at hand need.
    pub(crate) fn work(&mut self, member: usize) {
        loop {
            let at = &mut self.members[member];
            let Some(process) = at.process.as_mut().filter(|_| !at.paused) else { return };
            match &mut process.work {
                Work::Writing(_) => return,
                Work::Refused(persist) => {
                    let persist = persist.clone();
                    let outcome = process.disk.write(&persist);
                    if !self.wrote(member, persist, outcome) {
                        return;
                    }
                }
                Work::Idle => {
                    if process.inbox.is_empty() && !process.core.has_work() {
                        return;
                    }
                    let inbox = std::mem::take(&mut process.inbox);
                    if inbox.iter().filter(|input| matches!(input, Input::Propose(_))).count() > 1 {
                        self.tally.count(Counted::ProposalsGrouped);
                    }
                    let step = process.core.step(inbox);
                    let last = process.core.entries().last();
                    if step.persist.entries.first().is_some_and(|entry| entry.index <= last) {
                        self.tally.count(Counted::EntriesReplaced);
                    }
                    let outcome = process.disk.write(&step.persist);
                    for (id, refusal) in step.refused {
                        A::refused(self, member, id, refusal);
                    }
                    self.send(member, step.send);
                    if !self.wrote(member, step.persist, outcome) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether the round is over already.
    fn wrote(&mut self, member: usize, persist: Persist, outcome: Result<Durable, StorageError>) -> bool {
        let durable = match outcome {
            Ok(durable) => durable,
            Err(error) if error.is_disk_full() => {
                self.tally.count(Counted::DiskFull);
                self.process(member).work = Work::Refused(persist);
                return false;
            }
            Err(error) => {
                self.disk_failed(member, &error);
                return false;
            }
        };
        let takes_ms = match persist.must_sync {
            true => self.dice.between(0, self.rates.sync_ms_max + 1),
            false => 0,
        };
        if takes_ms == 0 {
            self.process(member).work = Work::Idle;
            return self.persisted(member, durable);
        }
        self.process(member).work = Work::Writing(Some(durable));
        let start = self.members[member].starts_count;
        self.after(takes_ms, Happening::Written { member, start });
        false
    }

    fn written(&mut self, member: usize, start: u64) {
        let at = &mut self.members[member];
        if at.starts_count != start {
            return;
        }
        if at.paused {
            return self.after(10, Happening::Written { member, start });
        }
        let Some(process) = at.process.as_mut() else { return };
        if let Work::Writing(durable) = &mut process.work {
            let durable = durable.take().expect("one write, one end");
            process.work = Work::Idle;
            self.persisted(member, durable);
        }
        self.work(member);
    }

    /// A process that cannot trust its disk any more stops itself.
    fn disk_failed(&mut self, member: usize, error: &StorageError) {
        let power = self.members[member].vfs.crashed();
        self.tally.count(if power { Counted::PowerLostInWrite } else { Counted::SyncFailed });
        self.note(format_args!("{member} disk: {error}"));
        self.stop(member, power);
    }

    /// Whether the member lives on.
    fn persisted(&mut self, member: usize, durable: Durable) -> bool {
        let core = &mut self.process(member).core;
        let led = matches!(core.role(), Role::Leader { .. });
        let After { send, apply, decided, role } = core.persisted(durable);
        for apply in apply {
            self.apply(member, apply);
        }
        for (id, decided) in decided {
            self.note(format_args!("{member} says proposal {id} is {decided:?}"));
            A::decided(self, member, id, decided);
        }
        if let Some(role) = role {
            self.note(format_args!("{member} is {role:?}"));
            match role {
                Role::Leader { .. } => self.tally.count(Counted::LeaderElected),
                _ if led => self.tally.count(Counted::LeaderDeposed),
                _ => {}
            }
            A::role(self, member, role);
        }
        self.send(member, send);
        self.take_snapshot(member)
    }

    fn apply(&mut self, member: usize, apply: Apply) {
        match apply {
            Apply::Restore { index, state } => {
                let process = self.process(member);
                (process.applied, process.state) = (index, A::decode(&state));
                self.tally.count(Counted::SnapshotInstalled);
                self.note(format_args!("{member} restores {index}"));
                A::restored(self, member);
            }
            Apply::Entry { index, term, data } => {
                self.process(member).applied = index;
                self.note(format_args!("{member} applies {index} of term {term}, {} bytes", data.len()));
                A::apply(self, member, index, term, data);
            }
        }
    }

    fn take_snapshot(&mut self, member: usize) -> bool {
        let early = self.dice.percent(2);
        let process = self.members[member].process.as_mut().expect("it runs");
        let due = early || process.disk.bytes() > A::LOG_BYTES_MAX;
        if !due || process.applied == process.core.entries().snapshot_index() {
            return true;
        }
        let (index, state) = (process.applied, A::encode(&process.state));
        match process.disk.compact(process.core.entries(), index, state.clone()) {
            Ok(()) => {
                process.core.compact(index, state);
                self.tally.count(Counted::SnapshotTaken);
                true
            }
            Err(error) if error.is_disk_full() => {
                self.tally.count(Counted::DiskFull);
                true
            }
            Err(error) => {
                self.disk_failed(member, &error);
                false
            }
        }
    }

    fn send(&mut self, from: usize, messages: Vec<Message>) {
        for message in messages {
            let to = message.to as usize - 1;
            let arrivals = self.network.arrivals((from, to), self.now_ms, &mut self.dice, &mut self.tally);
            self.note(format_args!("{from} sends {to} {:?}, arriving {arrivals:?}", message.get_msg_type()));
            for at_ms in arrivals {
                let message = Box::new(message.clone());
                self.after(at_ms - self.now_ms, Happening::Arrival { to, message });
            }
        }
    }

    pub(crate) fn process(&mut self, member: usize) -> &mut Process<A> {
        self.members[member].process.as_mut().expect("it runs")
    }

    fn heal(&mut self) {
        self.note(format_args!("trouble ends"));
        self.healed = true;
        self.queue.retain(|_, happening| {
            !matches!(happening, Happening::Trouble | Happening::Relief(_) | Happening::Start { .. })
        });
        self.network.heal();
        self.rates = Rates::calm();
        A::heal(self);
        for member in 0..MEMBERS {
            self.members[member].paused = false;
            self.members[member].tick_ms = 100;
            self.members[member].vfs.heal();
            A::resumed(self, member);
            match self.members[member].process {
                Some(_) => self.work(member),
                None => self.start(member, 0),
            }
        }
    }

    pub(crate) fn note(&mut self, text: std::fmt::Arguments) {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{} {text}", self.now_ms).expect("writing to a string");
        }
    }
}
