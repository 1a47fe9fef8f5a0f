//! Scripts: commands to three members, or to one that is alone, and under each what the members said. They show a round
//! from outside, in the order it must have: what goes out at once, what is persisted, what goes out and is applied then.
//!
//! Nothing is random here and nothing happens by itself: a message waits until `deliver`, time passes by `tick`.
//! A script whose answers have changed fails and prints what they are now.

use super::core::{After, Apply, Core, Input, Options, Persist, Proposal, Role, Step};
use super::disk::{Disk, Genesis};
use bytes::Bytes;
use raft::prelude::{Message, MessageType};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use storage::{LogOptions, SimVfs};

struct Stage {
    members: Vec<Actor>,
    /// On their way, oldest first.
    messages: Vec<Message>,
    said: String,
}

struct Actor {
    vfs: SimVfs,
    process: Option<(Core, Disk)>,
    applied: u64,
}

impl Stage {
    fn new(members_count: u64) -> Stage {
        let actor = |seed| Actor { vfs: SimVfs::new(seed), process: None, applied: 0 };
        let members = (1..=members_count).map(actor).collect();
        let mut stage = Stage { members, messages: Vec::new(), said: String::new() };
        (1..=members_count).for_each(|member| stage.start(member));
        stage
    }

    fn obey(&mut self, command: &str) {
        let words = command.split_whitespace().collect::<Vec<_>>();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "tick" => (0..number(2)).for_each(|_| self.round(number(1), vec![Input::Tick])),
            "campaign" => self.round(number(1), vec![Input::Campaign]),
            "propose" => {
                let proposals = words[2..].iter().enumerate().map(|(at, word)| {
                    let data = Bytes::copy_from_slice(word.as_bytes());
                    Input::Propose(Proposal { id: at as u64 + 1, data })
                });
                self.round(number(1), proposals.collect());
            }
            "deliver" => self.deliver(words.get(1).map(|to| to.parse().unwrap())),
            "lose" => self.messages.retain(|message| message.to != number(1)),
            "snapshot" => {
                let actor = &mut self.members[number(1) as usize - 1];
                let (core, disk) = actor.process.as_mut().unwrap();
                let state = Bytes::from(actor.applied.to_string());
                disk.compact(core.entries(), actor.applied, state.clone()).unwrap();
                core.compact(actor.applied, state);
            }
            "stop" => {
                let actor = &mut self.members[number(1) as usize - 1];
                actor.process = None;
                actor.vfs.restart();
            }
            "start" => {
                self.start(number(1));
                self.round(number(1), Vec::new());
            }
            other => panic!("no such command: {other}"),
        }
    }

    fn start(&mut self, member: u64) {
        let voters = (1..=self.members.len() as u64).collect();
        let genesis = || Genesis { member, incarnation: 5, voters, state: Bytes::from_static(b"1") };
        let actor = &mut self.members[member as usize - 1];
        let vfs = Arc::new(actor.vfs.clone());
        let (disk, entries) = Disk::open(vfs, Path::new("/raft"), LogOptions::default(), genesis).unwrap();
        actor.applied = entries.snapshot_index();
        actor.process = Some((Core::new(Options::new(member, member), entries), disk));
    }

    /// To everybody, or to one, until nobody has anything to say.
    fn deliver(&mut self, only: Option<u64>) {
        let reaches = |message: &Message| only.is_none_or(|only| message.to == only);
        while let Some(at) = self.messages.iter().position(reaches) {
            let message = self.messages.remove(at);
            self.round(message.to, vec![Input::Message(message)]);
        }
    }

    fn round(&mut self, member: u64, inputs: Vec<Input>) {
        let mut inputs = Some(inputs);
        loop {
            let Some((core, disk)) = self.members[member as usize - 1].process.as_mut() else { return };
            if inputs.is_none() && !core.has_work() {
                return;
            }
            let Step { refused, send, persist } = core.step(inputs.take().unwrap_or_default());
            let durable = disk.write(&persist).unwrap();
            let After { send: send_after, apply, decided, role } = core.persisted(durable);
            refused.iter().for_each(|(id, refusal)| self.say(member, &format!("refuses proposal {id}: {refusal:?}")));
            self.send(member, send);
            self.show_persist(member, &persist);
            self.send(member, send_after);
            if let Some(role) = role {
                let role = match role {
                    Role::Leader { term } => format!("leads term {term}"),
                    Role::Follower { term, leader: Some(leader) } => format!("follows {leader} in term {term}"),
                    Role::Follower { term, leader: None } => format!("follows nobody in term {term}"),
                    Role::Candidate { term } => format!("is a candidate in term {term}"),
                };
                self.say(member, &role);
            }
            for apply in apply {
                let (index, text) = match apply {
                    Apply::Restore { index, state } => (index, format!("restores {index}: {state:?}")),
                    Apply::Entry { index, term, data } => (index, format!("applies {index} of term {term}: {data:?}")),
                };
                self.members[member as usize - 1].applied = index;
                self.say(member, &text);
            }
            decided.iter().for_each(|(id, decided)| self.say(member, &format!("says proposal {id}: {decided:?}")));
        }
    }

    fn send(&mut self, member: u64, messages: Vec<Message>) {
        for message in messages {
            let Message { to, term, index, log_term, commit, reject, .. } = message;
            let mut text = format!("sends {to} {:?} term {term}", message.get_msg_type());
            match message.get_msg_type() {
                MessageType::MsgAppend => {
                    let entries = message.entries.iter().map(|entry| entry.index).collect::<Vec<_>>();
                    write!(text, " entries {entries:?} behind {index} of term {log_term}, commit {commit}").unwrap();
                }
                MessageType::MsgSnapshot => {
                    write!(text, " of {}", message.get_snapshot().get_metadata().index).unwrap();
                }
                MessageType::MsgAppendResponse => write!(text, " index {index}").unwrap(),
                _ => {}
            }
            if reject {
                text.push_str(", no");
            }
            self.say(member, &text);
            self.messages.push(message);
        }
    }

    fn show_persist(&mut self, member: u64, persist: &Persist) {
        if !persist.changed {
            return;
        }
        let entries = persist.entries.iter().map(|entry| entry.index).collect::<Vec<_>>();
        let state = &persist.state;
        let mut text = format!("persists term {} vote {} commit {}", state.term, state.vote, state.commit);
        if !entries.is_empty() {
            write!(text, " entries {entries:?}").unwrap();
        }
        if let Some(snapshot) = &persist.snapshot {
            write!(text, " snapshot {}", snapshot.get_metadata().index).unwrap();
        }
        if persist.must_sync {
            text.push_str(", synced");
        }
        self.say(member, &text);
    }

    fn say(&mut self, member: u64, text: &str) {
        writeln!(self.said, "{member} {text}").unwrap();
    }
}

fn play(script: &str, members_count: u64) {
    let mut stage = Stage::new(members_count);
    let mut transcript = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            stage.obey(command);
            write!(transcript, "{line}\n{}", std::mem::take(&mut stage.said)).unwrap();
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(transcript, "{line}").unwrap();
        }
    }
    assert!(transcript == script, "the members said something else:\n{transcript}");
}

#[test]
fn one_member_commits_with_one_sync() {
    play(include_str!("alone.txt"), 1);
}

#[test]
fn three_members_elect_replicate_and_recover() {
    play(include_str!("three.txt"), 3);
}

#[test]
fn a_deposed_leader_loses_what_only_it_had() {
    play(include_str!("deposed.txt"), 3);
}

#[test]
fn a_member_that_lags_too_far_gets_the_snapshot() {
    play(include_str!("snapshot.txt"), 3);
}
