//! Power goes, at every step and in every way: in work, in recovery, and again in recovery.

use super::*;
use crate::vfs::Loss;

/// Steps of `work`, and more.
const STEPS_MAX: u64 = 400;

/// A life that ends with a power cut at each of its steps: the disk as it was when power went.
fn at_every_cut(seed: u64, mut visit: impl FnMut(u64, &SimVfs, &Lived)) {
    for step in 0..STEPS_MAX {
        let vfs = SimVfs::new(seed + step);
        let store = open(&vfs);
        vfs.set_fault(Fault::Crash(step));
        let lived = work(&store);
        if !vfs.crashed() {
            assert_eq!(lived.acknowledged.len(), LAST as usize);
            return;
        }
        visit(step, &vfs, &lived);
    }
    panic!("the work never came to its end");
}

/// The store opens, has what it must have, and goes on.
fn recovers(vfs: &SimVfs, lived: &Lived, context: &str) {
    let store = try_open(vfs).unwrap_or_else(|error| panic!("{context}: {error}"));
    check(&store, lived, context);
    store.close().unwrap();
    assert_eq!(crate::verify(vfs, Path::new(DIR)), [], "{context}");
}

/// Where power went: what was being done, and to which file.
fn place(vfs: &SimVfs, lived: &Lived) -> String {
    let strike = vfs.struck().remove(0);
    let file = match strike.action {
        "sync_dir" => "directory",
        _ => kind(&strike.path),
    };
    format!("{}, {} {file}", lived.doing, strike.action)
}

#[test]
fn a_torn_write_loses_nothing_that_was_acknowledged() {
    let mut counts = Counts::new("torn writes: sectors left of the unsynced tail");
    for round in 0..rounds() {
        at_every_cut(round * STEPS_MAX, |step, vfs, lived| {
            for sectors in 0..=vfs.unsynced_sectors() {
                let torn = vfs.fork();
                torn.restart_with(Loss::Behind(sectors));
                recovers(&torn, lived, &format!("round {round}, step {step}, {sectors} sectors"));
                counts.add(format!("{sectors:2}"));
            }
        });
    }
    counts.at_least(500);
}

#[test]
fn any_subset_of_unsynced_sectors_may_vanish() {
    let mut counts = Counts::new("vanished sectors");
    for round in 0..rounds() {
        let mut dice = Dice(round);
        at_every_cut(round * STEPS_MAX, |step, vfs, lived| {
            let sectors = vfs.unsynced_sectors();
            let subsets = if sectors <= 3 {
                (1..1u64 << sectors).collect()
            } else {
                (0..8).map(|_| dice.below(1 << sectors)).collect::<Vec<_>>()
            };
            for (lost, stale) in subsets.into_iter().flat_map(|lost| [(lost, false), (lost, true)]) {
                let holey = vfs.fork();
                holey.restart_with(Loss::Sectors { lost, stale });
                recovers(&holey, lived, &format!("round {round}, step {step}, lost {lost:b}, stale {stale}"));
                let what = if stale { "hold another sector's bytes" } else { "hold zeros" };
                counts.add(format!("{} {what}", lost.count_ones()));
            }
        });
    }
    counts.at_least(800);
}

#[test]
fn power_cut_at_every_step_of_work_and_of_recovery() {
    let mut counts = Counts::new("power cuts");
    let mut recoveries = Counts::new("power cuts in a row, in recovery");
    for round in 0..rounds() {
        let mut dice = Dice(round);
        at_every_cut(round * STEPS_MAX, |step, vfs, lived| {
            counts.add(place(vfs, lived));
            let context = format!("round {round}, step {step}");
            for first in 0.. {
                let again = vfs.fork();
                again.restart();
                let mut cuts = 0;
                // The first at each step of recovery, the others wherever.
                for row in 0..5 {
                    again.set_fault(Fault::Crash(if row == 0 { first } else { dice.below(5) }));
                    let outcome = try_open(&again).map(std::mem::forget);
                    if !again.crashed() {
                        outcome.unwrap_or_else(|error| panic!("{context}, recovery {row}: {error}"));
                        break;
                    }
                    cuts += 1;
                    again.restart();
                }
                if cuts == 0 {
                    break;
                }
                recoveries.add(format!("{cuts}"));
                again.kill_process();
                recovers(&again, lived, &format!("{context}, {cuts} cuts from step {first} of recovery"));
            }
            vfs.restart();
            let store = try_open(vfs).unwrap();
            check(&store, lived, &context);
            insert(&store, 90, 90, 1, &rows(90)).unwrap();
            store.seal(ChunkId(1)).unwrap();
            assert_eq!(read(&store, 1, u64::MAX).unwrap().iter().filter(|row| row.number == Some(90)).count(), 40);
        });
    }
    counts.at_least(100);
    for phase in ["transaction", "seal", "merge", "rename manifest", "sync segment", "append deletes", "create log"] {
        assert!(counts.of(phase) > 0, "no cut in: {phase}");
    }
    recoveries.at_least(300);
    assert!(recoveries.of("5") > 0);
}

#[test]
fn power_cut_while_a_directory_is_made() {
    for step in 0..25 {
        let vfs = SimVfs::new(step);
        vfs.set_fault(Fault::Crash(step));
        let attached = try_open(&vfs).is_ok_and(|store| store.attach(identity()).is_ok());
        vfs.restart();
        let store = try_open(&vfs).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert!(!attached || store.status().identity.is_some(), "step {step}");
    }
}
