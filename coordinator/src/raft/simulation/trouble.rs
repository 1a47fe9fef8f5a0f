//! What can go wrong, how often in this seed, and for how long.

use super::dice::Dice;
use super::network::MEMBERS;
use super::tally::Event as Counted;
use super::world::{Happening, World};
use storage::vfs::Fault;

/// Drawn once per seed, so that seeds differ in kind: some are all network, some all disk.
pub(super) struct Rates {
    /// Between two troubles, on average.
    pub(super) trouble_ms: u64,
    pub(super) proposal_ms: u64,
    pub(super) sync_ms_max: u64,
    pub(super) down_ms_max: u64,
    pub(super) interrupted_start_percent: u64,
    /// One bit per kind of trouble.
    kinds: Vec<Kind>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Kill,
    PowerLoss,
    PowerLossInWrite,
    SyncFailure,
    FullDisk,
    Pause,
    SkewedClock,
    Isolation,
    Cut,
    OneWayCut,
    SlowLink,
}

const KINDS: [Kind; 11] = [
    Kind::Kill,
    Kind::PowerLoss,
    Kind::PowerLossInWrite,
    Kind::SyncFailure,
    Kind::FullDisk,
    Kind::Pause,
    Kind::SkewedClock,
    Kind::Isolation,
    Kind::Cut,
    Kind::OneWayCut,
    Kind::SlowLink,
];

/// Trouble that lasts, until it is taken back.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    Paused(usize),
    FullDisk(usize),
    SkewedClock(usize),
    Isolated(usize),
    Cut(usize, usize),
    Slow(usize, usize),
}

impl Rates {
    pub(super) fn new(dice: &mut Dice) -> Rates {
        let kinds = KINDS.into_iter().filter(|_| dice.percent(60)).collect();
        Rates {
            trouble_ms: dice.one_of(&[200, 500, 1_500, 5_000]),
            proposal_ms: dice.one_of(&[20, 60, 150]),
            sync_ms_max: dice.one_of(&[0, 3, 20, 100]),
            down_ms_max: dice.one_of(&[50, 1_000, 4_000]),
            interrupted_start_percent: dice.one_of(&[0, 20, 50]),
            kinds,
        }
    }

    pub(super) fn calm() -> Rates {
        Rates {
            trouble_ms: u64::MAX,
            proposal_ms: 50,
            sync_ms_max: 3,
            down_ms_max: 2,
            interrupted_start_percent: 0,
            kinds: Vec::new(),
        }
    }
}

impl World {
    pub(super) fn trouble(&mut self) {
        let delay_ms = self.dice.between(1, 2 * self.rates.trouble_ms);
        self.after(delay_ms, Happening::Trouble);
        if self.rates.kinds.is_empty() {
            return;
        }
        let kind = self.dice.one_of(&self.rates.kinds);
        let member = self.dice.between(0, MEMBERS as u64) as usize;
        let other = (member + self.dice.between(1, MEMBERS as u64) as usize) % MEMBERS;
        let lasts_ms = self.dice.one_of(&[50, 500, 3_000, 8_000]);
        let lasts_ms = self.dice.between(1, lasts_ms);
        self.note(format_args!("{kind:?} of {member}, {other} for {lasts_ms}"));
        let runs = self.members[member].process.is_some();
        let lasting = match kind {
            Kind::Kill if runs => return self.crash(member, false),
            Kind::PowerLoss if runs => return self.crash(member, true),
            Kind::PowerLossInWrite if runs => {
                let at = self.dice.between(0, 8);
                return self.members[member].vfs.set_fault(Fault::Crash(at));
            }
            Kind::SyncFailure if runs => return self.members[member].vfs.set_fault(Fault::SyncFails(0)),
            Kind::Kill | Kind::PowerLoss | Kind::PowerLossInWrite | Kind::SyncFailure => return,
            Kind::FullDisk => {
                self.members[member].vfs.set_fault(Fault::Full(0));
                Trouble::FullDisk(member)
            }
            Kind::Pause => {
                self.tally.count(Counted::MemberPaused);
                self.members[member].paused = true;
                Trouble::Paused(member)
            }
            Kind::SkewedClock => {
                self.tally.count(Counted::ClockSkewed);
                self.members[member].tick_ms = self.dice.one_of(&[10, 50, 200, 1_000]);
                Trouble::SkewedClock(member)
            }
            Kind::Isolation => {
                self.tally.count(Counted::MemberIsolated);
                self.network.isolate(member, true);
                Trouble::Isolated(member)
            }
            Kind::Cut => {
                self.tally.count(Counted::LinkCut);
                self.network.cut(other, member, true);
                self.network.cut(member, other, true);
                let back = Happening::Relief(Trouble::Cut(other, member));
                self.after(lasts_ms, back);
                Trouble::Cut(member, other)
            }
            Kind::OneWayCut => {
                self.tally.count(Counted::LinkCutOneWay);
                self.network.cut(member, other, true);
                Trouble::Cut(member, other)
            }
            Kind::SlowLink => {
                self.tally.count(Counted::LinkSlowed);
                self.network.slow(member, other, true);
                Trouble::Slow(member, other)
            }
        };
        self.after(lasts_ms, Happening::Relief(lasting));
    }

    /// Two troubles of a kind may overlap; the first that ends ends both.
    pub(super) fn relieve(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Paused(member) => {
                self.members[member].paused = false;
                self.work(member);
            }
            Trouble::FullDisk(member) => {
                self.members[member].vfs.heal();
                self.work(member);
            }
            Trouble::SkewedClock(member) => self.members[member].tick_ms = 100,
            Trouble::Isolated(member) => self.network.isolate(member, false),
            Trouble::Cut(from, to) => self.network.cut(from, to, false),
            Trouble::Slow(from, to) => self.network.slow(from, to, false),
        }
    }

    fn crash(&mut self, member: usize, power: bool) {
        let before = self.log_bytes(member);
        self.members[member].remember();
        self.tally.count(if power { Counted::PowerLost } else { Counted::ProcessKilled });
        self.stop(member, power);
        if self.log_bytes(member) < before {
            self.tally.count(Counted::TailTorn);
        }
    }

    fn log_bytes(&self, member: usize) -> usize {
        use storage::Vfs;
        let dir = std::path::Path::new("/raft/log");
        let vfs = &self.members[member].vfs;
        let names = vfs.list(dir).unwrap_or_default();
        names.iter().filter_map(|name| vfs.contents(&dir.join(name))).map(|bytes| bytes.len()).sum()
    }
}
