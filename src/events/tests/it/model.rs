//! Random work of publishers and consumers against a simple model, restarts included.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::StreamExt as _;
use micro_events::{Consume, Event};

use crate::node::{Consumer, Node, SOON, ask, event, ns, payload};

/// The next number of a sequence that only looks random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// What must be so.
#[derive(Default)]
struct Model {
    published: u64,
    done: BTreeSet<u64>,
    /// Offsets whose deliveries a restart may repeat although they are done: it forgot the answer.
    forgotten: BTreeSet<u64>,
}

struct Actor {
    consumer: Consumer,
    held: BTreeMap<u64, Event>,
    last_first: Option<u64>,
    /// It was never one of several, who leave each other events that they did not see.
    alone: bool,
}

impl Actor {
    async fn join(node: &Node) -> Self {
        let consume = Consume {
            in_flight: 8,
            ..ask("orders", "g")
        };
        Self {
            consumer: node.consume("foo", consume).await,
            held: BTreeMap::new(),
            last_first: None,
            alone: true,
        }
    }

    fn receive(&mut self, model: &Model) {
        for event in self.consumer.waiting() {
            assert_eq!(payload(&event), event.offset.to_string());
            assert!(
                event.offset < model.published,
                "nothing comes before it is published"
            );
            assert!(
                !model.done.contains(&event.offset) || model.forgotten.contains(&event.offset),
                "{} was done",
                event.offset
            );
            if event.delivery == 1 && self.alone {
                assert!(self.last_first < Some(event.offset), "in order");
                self.last_first = Some(event.offset);
            }
            self.held.insert(event.offset, event);
        }
        assert!(self.held.len() <= 8, "{:?}", self.held.keys());
    }
}

async fn settle(node: &Node, model: &Model) {
    let least = model.published - model.done.len() as u64;
    let most = least + model.forgotten.len() as u64;
    node.group("foo", |group| (least..=most).contains(&group.lag))
        .await;
}

/// Plays one game.
async fn play(seed: u64, steps: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut node = Node::start();
    let mut model = Model::default();
    let mut actors = vec![Actor::join(&node).await];
    for _ in 0..steps {
        match dice.roll(20) {
            0..5 => {
                let count = dice.roll(6) + 1;
                let events = (0..count)
                    .map(|n| event("orders", &(model.published + n).to_string()))
                    .collect();
                let published = node.handle.publish(&ns("foo"), events).await.unwrap();
                assert_eq!(published[0].offset, model.published);
                model.published += count;
            }
            5..16 => {
                let Some(at) = pick(&mut dice, actors.len()) else {
                    continue;
                };
                let actor = &mut actors[at];
                tokio::task::yield_now().await;
                actor.receive(&model);
                let Some(which) = pick(&mut dice, actor.held.len()) else {
                    continue;
                };
                let offset = *actor.held.keys().nth(which).unwrap();
                let success = dice.roll(4) > 0;
                let event = actor.held.remove(&offset).unwrap();
                actor.consumer.answer(&event, success);
                if success {
                    model.done.insert(offset);
                    model.forgotten.remove(&offset);
                    settle(&node, &model).await;
                }
            }
            16 => {
                if let Some(at) = pick(&mut dice, actors.len()) {
                    // What it said last is heard.
                    actors.swap_remove(at);
                }
            }
            17 => {
                actors.push(Actor::join(&node).await);
                let alone = actors.len() == 1;
                actors.iter_mut().for_each(|actor| actor.alone = alone);
            }
            18 => {
                settle(&node, &model).await;
                actors.clear();
                node = node.restart().await;
                // An orderly end forgets nothing.
                settle(&node, &model).await;
            }
            _ => {
                actors.clear();
                node = node.crash().await;
                // What was not saved comes again; what was not done is never lost.
                let group = node.handle.groups(&ns("foo"), None).unwrap().remove(0);
                assert!(group.lag >= model.published - model.done.len() as u64);
                let done = model.done.iter().copied();
                model.forgotten = done.filter(|offset| *offset >= group.position).collect();
            }
        }
    }
    drain(&node, &mut model, actors).await;
}

/// Everything that is not done comes to a new consumer.
async fn drain(node: &Node, model: &mut Model, actors: Vec<Actor>) {
    drop(actors);
    let mut last = Actor::join(node).await;
    let begun = std::time::Instant::now();
    while node.handle.groups(&ns("foo"), None).unwrap()[0].lag > 0 {
        assert!(begun.elapsed() < SOON, "{:?}", model.done);
        let next = last.consumer.deliveries.next();
        let Ok(delivery) = tokio::time::timeout(Duration::from_millis(20), next).await else {
            continue;
        };
        let event = delivery
            .expect("the stream goes on")
            .unwrap()
            .event()
            .unwrap();
        let repeated = model.done.contains(&event.offset);
        assert!(!repeated || model.forgotten.remove(&event.offset));
        last.consumer.answer(&event, true);
        model.done.insert(event.offset);
    }
    assert_eq!(model.done.len() as u64, model.published, "every event came");
    last.consumer.nothing().await;
}

fn pick(dice: &mut Dice, count: usize) -> Option<usize> {
    let count = u64::try_from(count).unwrap();
    (count > 0).then(|| usize::try_from(dice.roll(count)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_behave_like_the_model() {
    for seed in 1..=6 {
        play(seed, 150).await;
    }
}
