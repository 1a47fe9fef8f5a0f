//! What can go wrong, how often in this seed, and for how long.

use super::app::App;
use super::dice::Dice;
use super::network::MEMBERS;
use super::tally::Event as Counted;
use super::world::{Happening, World};
use storage::vfs::{Fault, SimVfs};

/// Drawn once per seed, so that seeds differ in kind: some are all network, some all disk.
pub(crate) struct Rates {
    /// Between two troubles, on average.
    pub(crate) trouble_ms: u64,
    pub(crate) proposal_ms: u64,
    pub(crate) sync_ms_max: u64,
    pub(crate) down_ms_max: u64,
    pub(crate) interrupted_start_percent: u64,
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
pub(crate) enum Trouble {
    Paused(usize),
    FullDisk(usize),
    SkewedClock(usize),
    Isolated(usize),
    Cut(usize, usize),
    Slow(usize, usize),
}

impl Rates {
    pub(crate) fn new(dice: &mut Dice) -> Rates {
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

    pub(crate) fn calm() -> Rates {
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

impl<A: App> World<A> {
    pub(crate) fn trouble(&mut self) {
        let delay_ms = self.dice.between(1, 2 * self.rates.trouble_ms);
        self.after(delay_ms, Happening::Trouble);
        if self.rates.kinds.is_empty() {
            return;
        }
        let kind = self.dice.one_of(&self.rates.kinds);
        let site = self.dice.between(0, A::SITES as u64) as usize;
        let other = (site + self.dice.between(1, A::SITES as u64) as usize) % A::SITES;
        let lasts_ms = self.dice.one_of(&[50, 500, 3_000, 8_000]);
        let lasts_ms = self.dice.between(1, lasts_ms);
        self.note(format_args!("{kind:?} of {site}, {other} for {lasts_ms}"));
        let runs = match self.members.get(site) {
            Some(member) => member.process.is_some(),
            None => A::runs(self, site),
        };
        let lasting = match kind {
            Kind::Kill if runs => return self.crash(site, false),
            Kind::PowerLoss if runs => return self.crash(site, true),
            Kind::PowerLossInWrite if runs => {
                let at = self.dice.between(0, 8);
                return self.vfs(site).set_fault(Fault::Crash(at));
            }
            Kind::SyncFailure if runs => return self.vfs(site).set_fault(Fault::SyncFails(0)),
            Kind::Kill | Kind::PowerLoss | Kind::PowerLossInWrite | Kind::SyncFailure => return,
            Kind::FullDisk => {
                self.vfs(site).set_fault(Fault::Full(0));
                Trouble::FullDisk(site)
            }
            Kind::Pause => {
                self.pause(site, true);
                Trouble::Paused(site)
            }
            Kind::SkewedClock => {
                self.skew(site, true);
                Trouble::SkewedClock(site)
            }
            Kind::Isolation => {
                self.tally.count(Counted::MemberIsolated);
                self.network.isolate(site, true);
                Trouble::Isolated(site)
            }
            Kind::Cut => {
                self.tally.count(Counted::LinkCut);
                self.network.cut(other, site, true);
                self.network.cut(site, other, true);
                let back = Happening::Relief(Trouble::Cut(other, site));
                self.after(lasts_ms, back);
                Trouble::Cut(site, other)
            }
            Kind::OneWayCut => {
                self.tally.count(Counted::LinkCutOneWay);
                self.network.cut(site, other, true);
                Trouble::Cut(site, other)
            }
            Kind::SlowLink => {
                self.tally.count(Counted::LinkSlowed);
                self.network.slow(site, other, true);
                Trouble::Slow(site, other)
            }
        };
        self.after(lasts_ms, Happening::Relief(lasting));
    }

    /// Two troubles of a kind may overlap; the first that ends ends both.
    pub(crate) fn relieve(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Paused(site) => self.pause(site, false),
            Trouble::FullDisk(site) => {
                self.vfs(site).heal();
                match site < MEMBERS {
                    true => self.work(site),
                    false => A::relieved(self, site),
                }
            }
            Trouble::SkewedClock(site) => self.skew(site, false),
            Trouble::Isolated(site) => self.network.isolate(site, false),
            Trouble::Cut(from, to) => self.network.cut(from, to, false),
            Trouble::Slow(from, to) => self.network.slow(from, to, false),
        }
    }

    fn vfs(&self, site: usize) -> SimVfs {
        self.members.get(site).map_or_else(|| A::vfs(self, site), |member| member.vfs.clone())
    }

    fn pause(&mut self, site: usize, paused: bool) {
        if site >= MEMBERS {
            return A::pause(self, site, paused);
        }
        self.members[site].paused = paused;
        if paused {
            return self.tally.count(Counted::MemberPaused);
        }
        A::resumed(self, site);
        self.work(site);
    }

    fn skew(&mut self, site: usize, skewed: bool) {
        if site >= MEMBERS {
            return A::skew(self, site, skewed);
        }
        if skewed {
            self.tally.count(Counted::ClockSkewed);
        }
        self.members[site].tick_ms = if skewed { self.dice.one_of(&[10, 50, 200, 1_000]) } else { 100 };
    }

    fn crash(&mut self, site: usize, power: bool) {
        if site >= MEMBERS {
            return A::crash(self, site, power);
        }
        let before = self.log_bytes(site);
        self.members[site].remember();
        self.tally.count(if power { Counted::PowerLost } else { Counted::ProcessKilled });
        self.stop(site, power);
        if self.log_bytes(site) < before {
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
