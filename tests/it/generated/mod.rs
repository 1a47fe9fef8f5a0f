//! Random queries whose answers must fulfil what `laws` says, and must not depend on how they were made: in one process or on
//! three, with push-down or without, as a simple query or with parameters, with a plan made for them or one that was kept,
//! from sealed rows or from the delta. No expected value is known to this test.
//!
//! `SERIATIM_SEED` replays the run a failure printed, `SERIATIM_ROUNDS=n` does so many runs, each with rows and seed of its
//! own. With `SERIATIM_REFERENCE` a PostgreSQL 15 is asked everything too, and must agree.
//!
//! Invariants
//! - A statement that a place refuses with 0A000 is left out, and only few may be; any other error is a failure.

mod laws;
mod merge;
mod place;
mod query;
mod rows;
mod statement;

use crate::cluster::{Cluster, Shape, connect, reference, scratch_database};
use laws::{Case, Law, difference, sorted};
use place::{Mode, Place, Protocol, Refusal, Row, Way};
use query::renamed;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use statement::{Constant, inline};
use std::collections::BTreeMap;
use tokio_postgres::config::Host;

/// Cases of one run.
const CASES: usize = 60;
/// As many answers are asked for again when all rows are sealed.
const KEPT: usize = 25;
/// A failing build says enough with these.
const FAILURES_MAX: usize = 8;
/// Of a run's statements one in so many may be refused.
const REFUSED_SHARE: usize = 10;

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn answers_do_not_depend_on_plans() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("SERIATIM_SEED").unwrap_or(1);
    let rounds = number("SERIATIM_ROUNDS").unwrap_or(1);
    let clusters = [Cluster::start(Shape::Embedded).await, Cluster::start(Shape::Processes).await];
    let mut failures = Vec::new();
    for seed in first..first + rounds {
        let mut world = World::new(&clusters, seed).await;
        world.run();
        println!("SERIATIM_SEED={seed}: {} answers, {} refused, {:?}", world.asked, world.refused, world.laws);
        failures.append(&mut world.failures);
        if failures.len() >= FAILURES_MAX {
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

struct World {
    seed: u64,
    places: Vec<Place>,
    /// Answers of before everything was sealed.
    kept: Vec<Kept>,
    laws: BTreeMap<Law, usize>,
    asked: usize,
    refused: usize,
    failures: Vec<String>,
}

struct Kept {
    statement: String,
    constants: Vec<Constant>,
    is_ordered: bool,
    rows: Vec<Row>,
}

impl World {
    /// Databases of its own in which the tables are made.
    async fn new(clusters: &[Cluster], seed: u64) -> World {
        let database = format!("seed_{seed}");
        let mut places = Vec::new();
        for (name, cluster) in ["one process", "three processes"].into_iter().zip(clusters) {
            cluster.connect().await.run(&format!("CREATE DATABASE {database}")).await;
            connect(&cluster.config(&database)).await.unwrap().run("CREATE EXTENSION IF NOT EXISTS timescaledb").await;
            places.push(Place::open(name, cluster.sql_addr(), "postgres", &database, false));
        }
        if let Some(config) = reference() {
            let config = scratch_database(&config).await;
            let [Host::Tcp(host)] = config.get_hosts() else { panic!("SERIATIM_REFERENCE names one host, by TCP") };
            let addr = format!("{host}:{}", config.get_ports()[0]).parse().unwrap();
            let user = config.get_user().unwrap_or("postgres");
            let mut postgres = Place::open("postgres", addr, user, config.get_dbname().unwrap(), true);
            postgres.run(place::TIME_BUCKET);
            places.push(postgres);
        }
        let steps = rows::steps(&mut StdRng::seed_from_u64(seed));
        places.iter_mut().for_each(|place| place.make(&steps));
        World { seed, places, kept: Vec::new(), laws: BTreeMap::new(), asked: 0, refused: 0, failures: Vec::new() }
    }

    /// First all places have rows in every state, then one has sealed them, at last all have.
    fn run(&mut self) {
        for number in 0..CASES {
            if number == CASES / 2 {
                self.places[0].run(rows::COMPRESS_ALL);
            }
            // Each case has its own randomness: one that is left out does not change the others.
            let mut rng = StdRng::seed_from_u64(self.seed.wrapping_mul(1 << 20).wrapping_add(number as u64));
            let case = Case::draw(&mut rng);
            match self.case(number, &case, &mut rng) {
                Ok(()) => *self.laws.entry(case.law).or_default() += 1,
                Err(refusal) if refusal.code == "0A000" => self.refused += 1,
                Err(refusal) => self.fail(number, &case, &format!("{}: {}", refusal.code, refusal.text)),
            }
            if self.failures.len() >= FAILURES_MAX {
                return;
            }
        }
        self.places[1].run(rows::COMPRESS_ALL);
        for kept in std::mem::take(&mut self.kept) {
            self.compare_kept(&kept);
        }
        if self.refused * REFUSED_SHARE > CASES {
            self.failures.push(format!("{} of {CASES} cases were refused", self.refused));
        }
    }

    fn case(&mut self, number: usize, case: &Case, rng: &mut StdRng) -> Result<(), Refusal> {
        let mode = self.mode(rng);
        let (rows, broken) = case.hold(&mut |text| self.ask(mode, text, &case.constants))?;
        if let Some(why) = broken {
            self.fail(number, case, &format!("{:?} does not hold, {}: {why}", case.law, self.describe(mode)));
            return Ok(());
        }
        // Where the plan was not made before, without push-down.
        let cold = Mode { place: rng.random_range(0..2), way: Way::Bare, protocol: Protocol::Simple };
        let text = renamed(&case.whole, number);
        self.same(number, case, &text, cold, &rows)?;
        let elsewhere = Mode { place: 1 - mode.place, ..self.mode(rng) };
        self.same(number, case, &case.whole, elsewhere, &rows)?;
        if self.places.len() > 2 {
            let postgres = Mode { place: 2, way: Way::PushedDown, protocol: Protocol::Simple };
            self.same(number, case, &case.whole, postgres, &rows)?;
        }
        if number.is_multiple_of(4) {
            self.again_with_other_constants(number, case, rng)?;
        }
        if self.kept.len() < KEPT {
            let (statement, constants) = (case.whole.clone(), case.constants.clone());
            self.kept.push(Kept { statement, constants, is_ordered: case.is_ordered, rows });
        }
        Ok(())
    }

    /// The first, the second, … time a statement of one shape comes, its plan is had in another way.
    fn again_with_other_constants(&mut self, number: usize, case: &Case, rng: &mut StdRng) -> Result<(), Refusal> {
        let place = rng.random_range(0..2);
        let mut all = vec![case.constants.clone()];
        all.extend((0..4).map(|_| case.constants.iter().map(|constant| constant.again(rng)).collect::<Vec<_>>()));
        all.push(case.constants.clone());
        let mode = Mode { place, way: Way::PushedDown, protocol: Protocol::Simple };
        let prepared = self.places[place].ask_prepared(&case.whole, &all)?;
        self.asked += all.len();
        for (time, (constants, prepared)) in all.iter().zip(prepared).enumerate() {
            let simple = self.ask(mode, &case.whole, constants)?;
            let cold = Mode { place: 1 - place, way: Way::Bare, protocol: Protocol::Simple };
            let fresh = self.ask(cold, &renamed(&case.whole, 1000 + number * 10 + time), constants)?;
            for (rows, how) in [(simple, "simple"), (prepared, "prepared")] {
                if let Some(why) = unequal(case.is_ordered, &fresh, &rows) {
                    let text = inline(&case.whole, constants);
                    let what = format!("{how}, {}, time {time}: {why}\n  {text}", self.places[place].name);
                    self.fail(number, case, &what);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn same(&mut self, number: usize, case: &Case, text: &str, mode: Mode, rows: &[Row]) -> Result<(), Refusal> {
        let found = self.ask(mode, text, &case.constants)?;
        if let Some(why) = unequal(case.is_ordered, rows, &found) {
            self.fail(number, case, &format!("differs {}: {why}", self.describe(mode)));
        }
        Ok(())
    }

    fn compare_kept(&mut self, kept: &Kept) {
        for place in 0..2 {
            let mode = Mode { place, way: Way::PushedDown, protocol: Protocol::Simple };
            let found = self.ask(mode, &kept.statement, &kept.constants);
            let why = match found {
                Ok(rows) => unequal(kept.is_ordered, &kept.rows, &rows),
                Err(refusal) => Some(refusal.text),
            };
            if let Some(why) = why {
                let text = inline(&kept.statement, &kept.constants);
                self.failures.push(format!(
                    "SERIATIM_SEED={} differs when all rows are sealed, {}: {why}\n  {text}",
                    self.seed,
                    self.describe(mode)
                ));
            }
        }
    }

    fn ask(&mut self, mode: Mode, text: &str, constants: &[Constant]) -> Result<Vec<Row>, Refusal> {
        self.asked += 1;
        self.places[mode.place].ask(mode, text, constants)
    }

    fn mode(&self, rng: &mut StdRng) -> Mode {
        let protocol = if rng.random_bool(0.5) { Protocol::Simple } else { Protocol::Extended };
        let way = match rng.random_range(0..10) {
            0..3 => Way::Bare,
            3..7 => Way::PushedDown,
            _ => Way::Shuffled,
        };
        Mode { place: rng.random_range(0..2), way, protocol }
    }

    fn describe(&self, mode: Mode) -> String {
        format!("in {}, {:?}, {:?} protocol", self.places[mode.place].name, mode.way, mode.protocol)
    }

    fn fail(&mut self, number: usize, case: &Case, what: &str) {
        let statements = case.statements().map(|text| format!("  {}", inline(text, &case.constants)));
        let statements = statements.collect::<Vec<_>>().join("\n");
        self.failures.push(format!("SERIATIM_SEED={} case {number}: {what}\n{statements}", self.seed));
    }
}

fn unequal(is_ordered: bool, left: &[Row], right: &[Row]) -> Option<String> {
    if is_ordered { difference(left, right) } else { difference(&sorted(left.to_vec()), &sorted(right.to_vec())) }
}
