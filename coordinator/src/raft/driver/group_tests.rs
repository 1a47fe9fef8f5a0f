//! Three members in one process, whose messages are handed over as calls.

use super::stuck::StuckVfs;
use super::tests::Text;
use super::*;
use parking_lot::Mutex;
use proto::SystemClock;
use std::collections::BTreeMap;
use storage::SimVfs;
use storage::vfs::Fault;

/// Elections after 200 to 400 milliseconds of silence.
const TICK: Duration = Duration::from_millis(20);

/// Who listens. A member that is not in it hears nothing and is not heard.
#[derive(Default)]
struct Network(Mutex<BTreeMap<u64, Arc<Driver<Text>>>>);

/// One member's side of it.
struct Mouth {
    member: u64,
    network: Arc<Network>,
}

impl Outbox for Mouth {
    fn send(&self, to: u64, message: Bytes) {
        let listeners = self.network.0.lock();
        if let Some(driver) = listeners.get(&to).filter(|_| listeners.contains_key(&self.member)) {
            driver.receive(&message).unwrap();
        }
    }
}

struct Group {
    network: Arc<Network>,
    members: BTreeMap<u64, Arc<Driver<Text>>>,
    disks: BTreeMap<u64, StuckVfs>,
}

impl Group {
    fn new() -> Group {
        let network = Arc::new(Network::default());
        let disks = (1..=3).map(|member| (member, StuckVfs::new(SimVfs::new(member)))).collect::<BTreeMap<_, _>>();
        let open = |member| {
            let mouth = Arc::new(Mouth { member, network: Arc::clone(&network) });
            let state = Bytes::from_static(b">");
            let genesis = || Genesis { member, incarnation: member, voters: vec![1, 2, 3], state };
            let options = DriverOptions { log_bytes_max: 1 << 20, segment_bytes_max: 4096, tick: TICK };
            let (vfs, clock) = (Arc::new(disks[&member].clone()), Arc::new(SystemClock::new()));
            Arc::new(Driver::open(vfs, clock, Path::new("/c"), options, mouth, genesis).unwrap())
        };
        let members = (1..=3).map(|member| (member, open(member))).collect();
        let group = Group { network, members, disks };
        (1..=3).for_each(|member| group.join(member));
        group
    }

    fn join(&self, member: u64) {
        self.network.0.lock().insert(member, Arc::clone(&self.members[&member]));
    }

    fn part(&self, member: u64) {
        self.network.0.lock().remove(&member);
    }

    /// The first of these members that leads.
    async fn leader(&self, of: &[u64]) -> (u64, Reign, String) {
        let lead = |member: u64| {
            let mut standing = self.members[&member].standing();
            Box::pin(async move {
                let leads = |now: &Standing<Text>| matches!(now, Standing::Leading { reign, .. } if !reign.is_over());
                let leads = standing.wait_for(leads).await;
                let Standing::Leading { reign, machine } = leads.unwrap().clone() else { unreachable!() };
                (member, reign, machine.take().unwrap().0)
            })
        };
        futures::future::select_all(of.iter().map(|member| lead(*member))).await.0
    }

    fn others(&self, than: u64) -> Vec<u64> {
        self.members.keys().copied().filter(|member| *member != than).collect()
    }

    /// Until the member follows this leader.
    async fn follows(&self, member: u64, leader: u64) {
        let mut standing = self.members[&member].standing();
        let follows = |now: &Standing<Text>| matches!(now, Standing::Following { leader: Some(led) } if *led == leader);
        standing.wait_for(follows).await.unwrap();
    }

    /// Until the member has applied this.
    async fn wait(&self, member: u64, text: &str) {
        while self.members[&member].look(|machine| machine.0 != text) {
            tokio::time::sleep(TICK).await;
        }
    }
}

#[tokio::test]
async fn a_leader_that_hears_nobody_is_replaced_and_its_last_proposals_stay_open() {
    let group = Group::new();
    let (first, reign, _) = group.leader(&[1, 2, 3]).await;
    reign.committed(reign.propose(b"a".to_vec(), true).unwrap()).await.unwrap();
    group.part(first);
    let lost = reign.propose(b"b".to_vec(), true).unwrap();
    assert_eq!(reign.committed(lost).await.unwrap_err().code, SqlState::ADMIN_SHUTDOWN);
    assert_eq!(reign.ended().await.code, SqlState::ADMIN_SHUTDOWN);
    assert!(reign.propose(b"c".to_vec(), true).is_err(), "a reign does not come back");

    let (second, next, state) = group.leader(&group.others(first)).await;
    assert_eq!(state, ">a", "a new reign begins behind all that was acknowledged");
    assert!(next.term() > reign.term());
    next.committed(next.propose(b"d".to_vec(), true).unwrap()).await.unwrap();
    group.join(first);
    for member in 1..=3 {
        group.wait(member, ">ad").await;
    }
    group.follows(first, second).await;
}

/// Its thread is in a write meanwhile: somebody else must notice.
#[tokio::test]
async fn a_leader_whose_disk_does_not_take_anything_learns_that_it_was_replaced() {
    for is_full in [true, false] {
        let group = Group::new();
        let (first, reign, _) = group.leader(&[1, 2, 3]).await;
        reign.committed(reign.propose(b"a".to_vec(), true).unwrap()).await.unwrap();
        let disk = &group.disks[&first];
        match is_full {
            true => disk.disk.set_fault(Fault::Full(0)),
            false => disk.hold(true),
        }
        let lost = reign.propose(b"b".to_vec(), true).unwrap();
        let outcome = reign.committed(lost).await;
        assert!(outcome.is_ok() || reign.is_over(), "the others may have it");
        assert_eq!(reign.ended().await.code, SqlState::ADMIN_SHUTDOWN);
        assert!(reign.propose(b"c".to_vec(), true).is_err());
        let mut standing = group.members[&first].standing();
        standing.wait_for(|standing| matches!(standing, Standing::Following { .. })).await.unwrap();

        let (second, next, _) = group.leader(&group.others(first)).await;
        assert!(next.term() > reign.term());
        next.committed(next.propose(b"d".to_vec(), true).unwrap()).await.unwrap();
        disk.disk.heal();
        disk.hold(false);
        group.follows(first, second).await;
        let text = group.members[&second].look(|machine| machine.0.clone());
        group.wait(first, &text).await;
    }
}

#[tokio::test]
async fn who_has_to_step_down_does_not_lead_again_in_its_term() {
    let group = Group::new();
    let (_, reign, _) = group.leader(&[1, 2, 3]).await;
    reign.committed(reign.propose(b"a".to_vec(), true).unwrap()).await.unwrap();
    reign.resign(&Error::internal("enough"));
    assert_eq!(reign.ended().await.message, "enough");
    assert!(reign.propose(b"b".to_vec(), true).is_err());
    let (_, next, state) = group.leader(&[1, 2, 3]).await;
    assert!(next.term() > reign.term());
    assert_eq!(state, ">a");
}

#[tokio::test]
async fn a_leader_that_hears_nobody_is_not_sure_of_itself_before_it_is_replaced() {
    let group = Group::new();
    let (first, reign, _) = group.leader(&[1, 2, 3]).await;
    reign.assured().await.unwrap();
    group.part(first);
    let (_, next, _) = group.leader(&group.others(first)).await;
    // Whether or not it knows by now that it was replaced.
    assert!(reign.assured().await.is_err());
    next.assured().await.unwrap();
}

#[tokio::test]
async fn proposals_of_many_are_committed_in_their_order_on_every_member() {
    let group = Group::new();
    let (_, reign, _) = group.leader(&[1, 2, 3]).await;
    let proposals = (0..100).map(|number| reign.propose(format!("{number},").into_bytes(), true).unwrap());
    let last = proposals.collect::<Vec<_>>().pop().unwrap();
    reign.committed(last).await.unwrap();
    let expected = (0..100).fold(">".to_owned(), |text, number| format!("{text}{number},"));
    for member in 1..=3 {
        group.wait(member, &expected).await;
    }
}
