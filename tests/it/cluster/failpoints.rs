//! Members that die by themselves, at the failpoint they were started with.

use super::{Cluster, Member};
use std::os::unix::process::ExitStatusExt;

const SIGABRT: i32 = 6;

impl Cluster {
    pub fn is_running(&mut self, member: Member) -> bool {
        self.slot(member).is_some()
    }

    pub fn kill_if_running(&mut self, member: Member) {
        if self.is_running(member) {
            self.kill(member);
        }
    }

    /// Starts a member on its directory so that it dies at the given passage of the point; that may be before it is
    /// ready. See `has_died_at`.
    pub fn restart_armed(&mut self, member: Member, point: &str, passage: usize) {
        let armed = self.start_again(member, Some(&format!("{point}:{passage}")));
        // One that did not get ready says why: it must have been this.
        match armed {
            Ok(process) => *self.slot(member) = Some(process),
            Err(why) => assert!(why.contains(&last_words(point)), "{member:?} did not start: {why}"),
        }
    }

    /// Whether an armed member is gone; panics when it ended in another way.
    pub fn has_died_at(&mut self, member: Member, point: &str) -> bool {
        let Some(process) = self.slot(member).as_mut() else { return true };
        let Some(status) = process.ended() else { return false };
        let log = process.log_tail();
        let as_asked = status.signal() == Some(SIGABRT) && log.contains(&last_words(point));
        assert!(as_asked, "{member:?} was to die at {point} and ended with {status}\n{log}");
        *self.slot(member) = None;
        true
    }
}

fn last_words(point: &str) -> String {
    format!("dying at failpoint {point}")
}
