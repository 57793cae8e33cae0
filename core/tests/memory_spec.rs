//! The executable specification against a model of it that is too simple to be wrong: whole milliseconds, lists, no
//! cleverness.

use std::sync::Arc;
use std::time::Duration;

use dlock::Claim;
use dlock::Client;
use dlock::backend::memory::{Table, Taken};
use dlock::clock::Instant;
use proptest::prelude::*;

const TTL: u64 = 300;
/// A waiter that hasn't asked for so long is passed over: three refreshes of ttl/3.
const STALE: u64 = 300;

#[derive(Clone, Debug)]
enum Step {
    Take(u64, bool),
    Give(u64),
    Renew(u64, u64),
    Break,
    Look,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 1..6_u64;
    let step = prop_oneof![
        4 => (who.clone(), any::<bool>()).prop_map(|(who, wait)| Step::Take(who, wait)),
        3 => who.clone().prop_map(Step::Give),
        2 => (who, 1..600_u64).prop_map(|(who, ttl)| Step::Renew(who, ttl)),
        1 => Just(Step::Break),
        1 => Just(Step::Look),
        2 => (1..400_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Default)]
struct Model {
    now: u64,
    fence: u64,
    holder: Option<(u64, u64)>,
    queue: Vec<(u64, u64)>,
}

impl Model {
    fn clean(&mut self, asking: Option<u64>) {
        let now = self.now;
        self.holder = self.holder.filter(|(_, end)| *end > now);
        self.queue.retain(|(who, stale)| *stale > now || Some(*who) == asking);
    }

    fn take(&mut self, who: u64, wait: bool) -> Option<u64> {
        self.clean(Some(who));
        if let Some((owner, end)) = &mut self.holder
            && *owner == who
        {
            *end = (*end).max(self.now + TTL);
            return Some(self.fence);
        }
        if self.holder.is_none() && self.queue.first().is_none_or(|first| first.0 == who) {
            self.queue.retain(|(other, _)| *other != who);
            self.fence += 1;
            self.holder = Some((who, self.now + TTL));
            return Some(self.fence);
        }
        if wait {
            let stale = self.now + STALE;
            match self.queue.iter_mut().find(|(other, _)| *other == who) {
                Some(place) => place.1 = stale,
                None => self.queue.push((who, stale)),
            }
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn agrees_with_the_model(steps in steps()) {
        let client = Client::connect("memory://model").unwrap();
        let options = Arc::new(client.lock("k").ttl(Duration::from_millis(TTL)).options().clone());
        let claim = |nonce, wait| Claim { options: options.clone(), client: 1, nonce, wait };
        let at = |ms: u64| Instant::from_nanos((1_000 + ms) * 1_000_000);
        let (mut table, mut model) = (Table::default(), Model::default());
        for step in steps {
            let now = at(model.now);
            match step {
                Step::Take(who, wait) => {
                    let taken = table.take(now, &claim(who, wait), at(model.now + TTL), wait, None);
                    match (taken, model.take(who, wait)) {
                        (Taken::Granted(fence), Some(expected)) => prop_assert_eq!(fence, expected),
                        (Taken::Busy(until), None) => {
                            if let Some((_, end)) = model.holder {
                                prop_assert_eq!(until, at(end));
                            }
                        }
                        (taken, expected) => prop_assert!(false, "{:?} and not {:?}", taken, expected),
                    }
                }
                Step::Give(who) => {
                    model.clean(None);
                    let held = model.holder.is_some_and(|(owner, _)| owner == who);
                    if held {
                        model.holder = None;
                    }
                    model.queue.retain(|(other, _)| *other != who);
                    prop_assert_eq!(table.give(now, "k", who), held);
                }
                Step::Renew(who, ttl) => {
                    model.clean(None);
                    let mut kept = false;
                    if let Some((owner, end)) = &mut model.holder && *owner == who {
                        *end = (*end).max(model.now + ttl);
                        kept = true;
                    }
                    prop_assert_eq!(table.renew(now, "k", who, Duration::from_millis(ttl)), kept);
                }
                Step::Break => {
                    model.clean(None);
                    prop_assert_eq!(table.break_lock(now, "k"), model.holder.take().is_some());
                }
                Step::Look => {
                    model.clean(None);
                    let mut expected: Vec<_> = model.holder.iter().map(|(who, _)| (true, *who)).collect();
                    expected.extend(model.queue.iter().map(|(who, _)| (false, *who)));
                    let seen = table.contenders(now, "k").into_iter().map(|holder| {
                        let token = holder.token.unwrap();
                        (holder.held, token.rsplit('.').next().unwrap().parse().unwrap())
                    });
                    prop_assert_eq!(seen.collect::<Vec<_>>(), expected);
                }
                Step::Pass(ms) => model.now += ms,
            }
            let now = at(model.now);
            model.clean(None);
            prop_assert_eq!(table.owner(now, "k"), model.holder.map(|(who, _)| who));
            prop_assert_eq!(table.is_empty(now), model.holder.is_none() && model.queue.is_empty());
        }
    }
}

/// Names don't concern one another.
#[test]
fn a_name_of_its_own() {
    let client = Client::connect("memory://names").unwrap();
    let claim = |key: &str, nonce| Claim {
        options: Arc::new(client.lock(key).options().clone()),
        client: 1,
        nonce,
        wait: true,
    };
    let (mut table, now) = (Table::default(), Instant::from_nanos(5));
    assert_eq!(table.take(now, &claim("a", 1), Instant::NEVER, true, None), Taken::Granted(1));
    assert_eq!(table.take(now, &claim("b", 2), Instant::NEVER, true, None), Taken::Granted(2));
    assert!(!table.give(now, "b", 1) && !table.renew(now, "a", 2, Duration::from_secs(1)));
    assert!(table.break_lock(now, "b") && !table.break_lock(now, "b"));
    assert_eq!((table.owner(now, "a"), table.owner(now, "b")), (Some(1), None));
}
