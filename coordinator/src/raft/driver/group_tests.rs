//! Three members in one process, whose messages are handed over as calls.

use super::tests::Text;
use super::*;
use parking_lot::Mutex;
use proto::SystemClock;
use std::collections::BTreeMap;
use storage::SimVfs;

const TICK: Duration = Duration::from_millis(5);

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
}

impl Group {
    fn new() -> Group {
        let network = Arc::new(Network::default());
        let open = |member| {
            let mouth = Arc::new(Mouth { member, network: Arc::clone(&network) });
            let state = Bytes::from_static(b">");
            let genesis = || Genesis { member, incarnation: member, voters: vec![1, 2, 3], state };
            let options = DriverOptions { log_bytes_max: 1 << 20, segment_bytes_max: 4096, tick: TICK };
            let (vfs, clock) = (Arc::new(SimVfs::new(member)), Arc::new(SystemClock::new()));
            Arc::new(Driver::open(vfs, clock, Path::new("/c"), options, mouth, genesis).unwrap())
        };
        let members = (1..=3).map(|member| (member, open(member))).collect();
        let group = Group { network, members };
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
                let leads = standing.wait_for(|standing| matches!(standing, Standing::Leading { .. })).await;
                let Standing::Leading { reign, machine } = leads.unwrap().clone() else { unreachable!() };
                (member, reign, machine.take().unwrap().0)
            })
        };
        futures::future::select_all(of.iter().map(|member| lead(*member))).await.0
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

    let others = [1, 2, 3].into_iter().filter(|member| *member != first).collect::<Vec<_>>();
    let (second, next, state) = group.leader(&others).await;
    assert_eq!(state, ">a", "a new reign begins behind all that was acknowledged");
    assert!(next.term() > reign.term());
    next.committed(next.propose(b"d".to_vec(), true).unwrap()).await.unwrap();
    group.join(first);
    for member in 1..=3 {
        group.wait(member, ">ad").await;
    }
    let mut standing = group.members[&first].standing();
    let knows =
        |standing: &Standing<Text>| matches!(standing, Standing::Following { leader } if *leader == Some(second));
    standing.wait_for(knows).await.unwrap();
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
