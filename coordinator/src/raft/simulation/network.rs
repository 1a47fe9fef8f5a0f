//! Links between sites, the members first: who can reach whom, how long it takes, what is lost on the way.

use super::dice::Dice;
use super::tally::{Event, Tally};

pub(crate) const MEMBERS: usize = 3;

pub(crate) struct Network {
    loss_percent: u64,
    duplication_percent: u64,
    /// Most messages take up to this long …
    delay_ms_max: u64,
    /// … and some of them much longer.
    late_percent: u64,
    /// `cut[from][to]`
    cut: Vec<Vec<bool>>,
    slowed: Vec<Vec<bool>>,
    /// When the youngest message on its way arrives.
    last_arrival_ms: Vec<Vec<u64>>,
}

impl Network {
    pub(crate) fn new(dice: &mut Dice, sites: usize) -> Network {
        Network {
            loss_percent: dice.one_of(&[0, 0, 1, 5, 15, 30]),
            duplication_percent: dice.one_of(&[0, 1, 10, 50]),
            delay_ms_max: dice.one_of(&[2, 10, 50, 150]),
            late_percent: dice.one_of(&[0, 1, 10]),
            cut: vec![vec![false; sites]; sites],
            slowed: vec![vec![false; sites]; sites],
            last_arrival_ms: vec![vec![0; sites]; sites],
        }
    }

    /// When the message arrives: never, once or twice.
    pub(crate) fn arrivals(
        &mut self,
        (from, to): (usize, usize),
        now_ms: u64,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Vec<u64> {
        if self.cut[from][to] {
            tally.count(Event::MessageCutOff);
            return Vec::new();
        }
        if dice.percent(self.loss_percent) {
            tally.count(Event::MessageLost);
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival((from, to), now_ms, dice, tally)];
        if dice.percent(self.duplication_percent) {
            tally.count(Event::MessageDuplicated);
            arrivals.push(self.arrival((from, to), now_ms, dice, tally));
        }
        arrivals
    }

    fn arrival(&mut self, (from, to): (usize, usize), now_ms: u64, dice: &mut Dice, tally: &mut Tally) -> u64 {
        let mut delay_ms = dice.between(0, self.delay_ms_max + 1);
        if dice.percent(self.late_percent) {
            delay_ms += dice.between(0, 3_000);
        }
        if self.slowed[from][to] {
            delay_ms += dice.between(100, 1_500);
        }
        let at_ms = now_ms + delay_ms;
        let last_ms = &mut self.last_arrival_ms[from][to];
        if at_ms < *last_ms {
            tally.count(Event::MessageOvertaken);
        }
        *last_ms = at_ms.max(*last_ms);
        at_ms
    }

    pub(crate) fn isolate(&mut self, site: usize, cut: bool) {
        for other in (0..self.cut.len()).filter(|other| *other != site) {
            self.cut[site][other] = cut;
            self.cut[other][site] = cut;
        }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from][to] = cut;
    }

    pub(crate) fn slow(&mut self, from: usize, to: usize, slowed: bool) {
        self.slowed[from][to] = slowed;
    }

    /// From now on everything arrives, in time.
    pub(crate) fn heal(&mut self) {
        (self.loss_percent, self.duplication_percent, self.late_percent) = (0, 0, 0);
        self.delay_ms_max = 5;
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.slowed.iter_mut().flatten().for_each(|slowed| *slowed = false);
    }
}
