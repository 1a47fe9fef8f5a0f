//! Scripts: what is told to the core of a commit, or of a handshake, and under each what it wants done. No node, log or
//! clock is near; an answer comes when the script says so.
//!
//! A script whose answers have changed fails and prints what they are now.

use super::commit::core::{Commit, Input, Output};
use super::handshake::core::{self as handshake, Action, Recovery};
use super::owed::{Owed, Running};
use super::planted::Plan;
use proto::{
    ClusterId, CommitSeq, Error, NodeName, NodeStatus, PROTOCOL, Reaction, Result, SqlState, TxnId, TxnOutcome,
};
use std::fmt::Write;

const CLUSTER: ClusterId = ClusterId([1; 16]);

/// What the commands are told to.
trait Actor {
    fn obey(&mut self, words: &[&str]) -> Vec<String>;
}

fn play(script: &str, actor: &mut dyn Actor) {
    let mut transcript = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let said = actor.obey(&command.split_whitespace().collect::<Vec<_>>());
            writeln!(transcript, "{line}").unwrap();
            said.iter().for_each(|line| writeln!(transcript, "{line}").unwrap());
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(transcript, "{line}").unwrap();
        }
    }
    assert!(transcript == script, "something else was said:\n{transcript}");
}

fn lost() -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, "no answer").reaction(Reaction::Resolve)
}

/// `lost`, `no`, or nothing for yes.
fn answer(word: Option<&&str>) -> Result<()> {
    match word.copied() {
        Some("lost") => Err(lost()),
        Some("no") => Err(Error::new(SqlState::DISK_FULL, "no space left on device").reaction(Reaction::Abort)),
        Some(other) => panic!("no such answer: {other}"),
        None => Ok(()),
    }
}

fn outcome(words: &[&str]) -> Result<TxnOutcome> {
    match words {
        ["committed", seq] => Ok(TxnOutcome::Committed(CommitSeq(seq.parse().unwrap()))),
        ["prepared"] => Ok(TxnOutcome::Prepared),
        ["staged"] => Ok(TxnOutcome::Staged),
        ["unknown"] => Ok(TxnOutcome::Unknown),
        ["lost"] => Err(lost()),
        other => panic!("no such outcome: {other:?}"),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A commit

#[derive(Default)]
struct OneCommit(Option<Commit>);

impl Actor for OneCommit {
    fn obey(&mut self, words: &[&str]) -> Vec<String> {
        if let ["transaction", nodes @ ..] = words {
            let has_changes = nodes.contains(&"catalog");
            let nodes = nodes.iter().filter(|word| **word != "catalog").map(|name| NodeName::from(*name));
            self.0 = Some(Commit::begin(nodes.collect(), has_changes, false));
            return Vec::new();
        }
        let node = || NodeName::from(words[1]);
        let input = match words[0] {
            "settled" => Input::Settled(answer(words.get(1))),
            "voted" => Input::Voted(node(), answer(words.get(2))),
            "placed" => Input::Placed(match words[1] {
                "no" => Err(Error::new(SqlState::SERIALIZATION_FAILURE, "a chunk was dropped")),
                seq => Ok(CommitSeq(seq.parse().unwrap())),
            }),
            "recorded" => Input::Recorded(answer(words.get(1))),
            "told" => Input::Told(node(), answer(words.get(2))),
            "committed" => Input::Committed {
                outcome: answer(words.get(1).filter(|word| **word != "down")),
                node_up: words.last() != Some(&"down"),
            },
            "outcome" => Input::Outcome(outcome(&words[1..])),
            "aborted" => Input::Aborted(node(), answer(words.get(2))),
            "time" => Input::TimeUp,
            "visible" => Input::Visible,
            "deposed" => Input::Deposed,
            "abort" => return shown(self.0.as_mut().unwrap().give_up()),
            other => panic!("no such input: {other}"),
        };
        shown(self.0.as_mut().unwrap().step(input))
    }
}

fn shown(outputs: Vec<Output>) -> Vec<String> {
    let show = |output| match output {
        Output::Prepare(node) => format!("prepare {node}"),
        Output::Abort(node) => format!("abort {node}"),
        Output::Decide => "check, take a sequence, append the record".to_owned(),
        Output::TakeSequence => "check, take a sequence".to_owned(),
        Output::Sync => "sync the log".to_owned(),
        Output::Owe(seq) => format!("owe the decision at {seq}"),
        Output::Publish => "publish the catalog".to_owned(),
        Output::Commit(node, seq, mode) => format!("commit {node} at {seq}, {mode:?}"),
        Output::Acknowledged(node) => format!("{node} has acknowledged"),
        Output::TakeDown(node, error) => format!("take {node} down: {}", error.message),
        Output::OweOutcome(node) => format!("{node} decides"),
        Output::OutcomeKnown => "the outcome is known".to_owned(),
        Output::OutcomeLeft => "the outcome is left to the handshake".to_owned(),
        Output::Ask { node, later } => format!("ask {node}{}", if later { " later" } else { "" }),
        Output::LimitAsking => "limit asking".to_owned(),
        Output::OweAbort(node) => format!("owe {node} the abort"),
        Output::LogFailed(error) => format!("the log has failed: {}", error.message),
        Output::Close(seq) => format!("close {seq}"),
        Output::End => "end".to_owned(),
        Output::Await(seq) => format!("await {seq}"),
        Output::Answer(Ok(seq)) => format!("answer: committed at {seq}"),
        Output::Answer(Err(error)) => format!("answer: {} {}", error.code, error.message),
    };
    outputs.into_iter().map(show).collect()
}

// ---------------------------------------------------------------------------------------------------------------------
// A handshake

struct OneHandshake {
    epoch: u64,
    in_doubt: Vec<TxnId>,
    running: Running,
    owed: Owed,
    recovery: Option<Recovery>,
}

/// `epoch.number`
fn txn(word: &str) -> TxnId {
    let (epoch, number) = word.split_once('.').unwrap();
    TxnId { cluster: CLUSTER, epoch: epoch.parse().unwrap(), number: number.parse().unwrap() }
}

impl Actor for OneHandshake {
    fn obey(&mut self, words: &[&str]) -> Vec<String> {
        let node = NodeName::from("dn1");
        let recovery = self.recovery.as_mut();
        let input = match words {
            ["running", txns @ ..] => {
                let numbers = txns.iter().map(|word| txn(word).number).collect::<Vec<_>>();
                self.running = Running { next: 9, open: numbers.into_iter().collect() };
                return Vec::new();
            }
            ["holds", txns @ ..] => {
                self.in_doubt = txns.iter().map(|word| txn(word)).collect();
                return Vec::new();
            }
            ["owe", "commit", id, seq] => {
                self.owed.owe_commit(txn(id), CommitSeq(seq.parse().unwrap()), [node]);
                return Vec::new();
            }
            ["owe", "abort", id] => {
                self.owed.owe_abort(node, txn(id));
                return Vec::new();
            }
            ["owe", "outcome", id] => {
                self.owed.owe_outcome(txn(id), node);
                self.owed.outcome_left(&txn(id));
                return Vec::new();
            }
            ["begin"] => {
                let status = NodeStatus {
                    protocol: PROTOCOL,
                    build: String::new(),
                    identity: None,
                    incarnation: 1,
                    in_doubt: self.in_doubt.clone(),
                    commit_seq_max: CommitSeq::ZERO,
                    epoch_max: self.epoch,
                };
                let reign = (CLUSTER, self.epoch);
                let mut recovery = Recovery::begin(&node, reign, &status, &self.running, Plan::default());
                let action = recovery.start(&mut self.owed);
                self.recovery = Some(recovery);
                return vec![action_shown(action)];
            }
            ["aborted", rest @ ..] => handshake::Input::Aborted(answer(rest.first())),
            ["committed", rest @ ..] => handshake::Input::Committed(answer(rest.first())),
            ["outcome", rest @ ..] => handshake::Input::Outcome(outcome(rest)),
            other => panic!("no such command: {other:?}"),
        };
        vec![action_shown(recovery.unwrap().step(input, &mut self.owed))]
    }
}

fn action_shown(action: Action) -> String {
    let name = |txn: TxnId| format!("{}.{}", txn.epoch, txn.number);
    match action {
        Action::Abort(txn) => format!("abort {}", name(txn)),
        Action::Ask(txn) => format!("ask after {}", name(txn)),
        Action::Commit(txn, seq) => format!("commit {} at {seq}", name(txn)),
        Action::Up => "up".to_owned(),
        Action::Stay(error) => format!("stays down: {}", error.message),
    }
}

fn handshake() -> OneHandshake {
    let running = Running::default();
    OneHandshake { epoch: 3, in_doubt: Vec::new(), running, owed: Owed::default(), recovery: None }
}

// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn several_nodes_vote_and_are_told() {
    play(include_str!("two_phase.txt"), &mut OneCommit::default());
}

#[test]
fn one_no_or_no_answer_aborts_everywhere() {
    play(include_str!("no.txt"), &mut OneCommit::default());
}

#[test]
fn one_node_decides_alone() {
    play(include_str!("one_phase.txt"), &mut OneCommit::default());
}

#[test]
fn a_deposed_leader_says_what_is_certain() {
    play(include_str!("deposed.txt"), &mut OneCommit::default());
}

#[test]
fn a_node_is_up_when_nothing_is_left_open_on_it() {
    play(include_str!("handshake.txt"), &mut handshake());
}

#[test]
fn a_node_without_its_vote_stays_down() {
    play(include_str!("vote_lost.txt"), &mut handshake());
}
