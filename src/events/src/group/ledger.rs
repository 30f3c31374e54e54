//! What a group has handed out, and what became of it. No reading, no writing, no waiting: the
//! coordinator tells it what happens and when, so that all of it can be tried against a model.
//!
//! An event below `next` is either done or *open*. An open event is in one of four states:
//!
//! ```text
//!            hand over            time is over, no, consumer gone
//!   again ──────────────▶ flying ────────────────────────────────▶ again, or resting first
//!     ▲                     │ └──────────────────────────────────▶ dying, after the last delivery
//!     └──── resting ◀───────┘ after a no: a pause that grows
//!                           └─ yes ──▶ done
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::position::Position;
use crate::event::EventId;

/// The pause after the first no; it doubles with each.
const FIRST_REST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What a consumer asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// An event is done when the connection has taken it.
    pub(crate) auto: bool,
    /// How long an answer may take.
    pub(crate) wait: Duration,
    /// Deliveries after the first; `None` without end.
    pub(crate) limit: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// With a consumer.
    Flying(Flight),
    /// Waits until the pause is over.
    Resting(Instant),
    /// Waits for a consumer.
    Again,
    /// Was delivered as often as it may be.
    Dying,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    member: u64,
    terms: Terms,
    /// The connection took it; until then the consumer cannot have seen it.
    taken: bool,
    due: Instant,
}

#[derive(Debug)]
struct Open {
    /// Not known of an event that was open before the group was loaded.
    id: Option<EventId>,
    deliveries: u32,
    state: State,
}

/// The states the other way round.
#[derive(Debug, Default)]
struct Index {
    due: BTreeSet<(Instant, u64)>,
    again: BTreeSet<u64>,
    dying: BTreeSet<u64>,
    flying: HashMap<u64, usize>,
    flights: usize,
}

impl Index {
    fn insert(&mut self, offset: u64, state: &State) {
        match state {
            State::Flying(flight) => {
                self.due.insert((flight.due, offset));
                *self.flying.entry(flight.member).or_default() += 1;
                self.flights += 1;
            }
            State::Resting(until) => {
                self.due.insert((*until, offset));
            }
            State::Again => {
                self.again.insert(offset);
            }
            State::Dying => {
                self.dying.insert(offset);
            }
        }
    }

    fn remove(&mut self, offset: u64, state: &State) {
        match state {
            State::Flying(flight) => {
                self.due.remove(&(flight.due, offset));
                if let Some(count) = self.flying.get_mut(&flight.member) {
                    *count -= 1;
                }
                self.flights -= 1;
            }
            State::Resting(until) => {
                self.due.remove(&(*until, offset));
            }
            State::Again => {
                self.again.remove(&offset);
            }
            State::Dying => {
                self.dying.remove(&offset);
            }
        }
    }
}

/// An event whose time is over although its consumer's connection never took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stuck {
    pub(crate) offset: u64,
    pub(crate) member: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: u64,
    open: BTreeMap<u64, Open>,
    ids: HashMap<EventId, u64>,
    index: Index,
    changed: bool,
}

impl Ledger {
    /// Everything that was open waits for a consumer.
    pub(crate) fn restore(position: &Position) -> Self {
        let mut ledger = Self {
            next: position.next,
            ..Self::default()
        };
        for (offset, deliveries) in &position.open {
            let open = Open {
                id: None,
                deliveries: *deliveries,
                state: State::Again,
            };
            ledger.index.insert(*offset, &open.state);
            ledger.open.insert(*offset, open);
        }
        ledger
    }

    /// The first event that was never handed out.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Every event below this is done.
    pub(crate) fn floor(&self) -> u64 {
        self.open.keys().next().copied().unwrap_or(self.next)
    }

    /// How many events are open.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// How many events are with consumers.
    pub(crate) fn flights(&self) -> usize {
        self.index.flights
    }

    /// How many events are with this consumer.
    pub(crate) fn flying(&self, member: u64) -> usize {
        self.index.flying.get(&member).copied().unwrap_or(0)
    }

    /// Events that wait for a consumer, in order.
    pub(crate) fn again(&self) -> impl Iterator<Item = u64> {
        self.index.again.iter().copied()
    }

    /// Whether this one waits for a consumer.
    pub(crate) fn is_again(&self, offset: u64) -> bool {
        self.index.again.contains(&offset)
    }

    /// Events that were delivered as often as they may be, with the number of their deliveries.
    pub(crate) fn dying(&self) -> impl Iterator<Item = (u64, u32)> {
        self.index.dying.iter().map(|offset| {
            let deliveries = self.open.get(offset).map_or(0, |open| open.deliveries);
            (*offset, deliveries)
        })
    }

    /// Whether there is something to save since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When something happens by itself.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.index.due.first().map(|(due, _)| *due)
    }

    /// What to save. A delivery that the connection has not taken does not count.
    pub(crate) fn position(&self) -> Position {
        let deliveries = |open: &Open| match open.state {
            State::Flying(Flight { taken: false, .. }) => open.deliveries.saturating_sub(1),
            _ => open.deliveries,
        };
        Position {
            next: self.next,
            open: self
                .open
                .iter()
                .map(|(offset, open)| (*offset, deliveries(open)))
                .collect(),
        }
    }

    /// Gives an event to a consumer: the next one, or one that waits. Returns the number of the
    /// delivery.
    pub(crate) fn hand_over(
        &mut self,
        offset: u64,
        id: EventId,
        member: u64,
        terms: Terms,
        now: Instant,
    ) -> u32 {
        if offset >= self.next {
            self.next = offset + 1;
        }
        let state = State::Flying(Flight {
            member,
            terms,
            taken: false,
            due: now + terms.wait,
        });
        let open = self.open.entry(offset).or_insert(Open {
            id: None,
            deliveries: 0,
            state: State::Again,
        });
        open.deliveries = open.deliveries.saturating_add(1);
        if open.id.replace(id).is_none() {
            self.ids.insert(id, offset);
        }
        let before = std::mem::replace(&mut open.state, state);
        let deliveries = open.deliveries;
        self.index.remove(offset, &before);
        self.index.insert(offset, &state);
        deliveries
    }

    /// The connection of `member` took the event at `when`.
    pub(crate) fn taken(&mut self, offset: u64, member: u64, when: Instant) {
        match self.flight(offset, member) {
            Some(flight) if flight.terms.auto => self.done(offset),
            Some(flight) if !flight.taken => self.turn(
                offset,
                State::Flying(Flight {
                    taken: true,
                    due: when + flight.terms.wait,
                    ..flight
                }),
            ),
            _ => {}
        }
    }

    /// A yes, from whomever: also one that comes late makes further deliveries needless.
    pub(crate) fn ack(&mut self, id: &EventId) {
        if let Some(offset) = self.ids.get(id) {
            self.done(*offset);
        }
    }

    /// A no from the consumer that has the event now; others have no say any more.
    pub(crate) fn nack(&mut self, id: &EventId, member: u64, now: Instant) {
        let Some(offset) = self.ids.get(id).copied() else {
            return;
        };
        if let Some(flight) = self.flight(offset, member) {
            let deliveries = self.open.get(&offset).map_or(1, |open| open.deliveries);
            let doublings = deliveries.saturating_sub(1).min(16);
            let rest = FIRST_REST.saturating_mul(1 << doublings).min(LONGEST_REST);
            self.failed(offset, flight.terms, State::Resting(now + rest));
        }
    }

    /// A consumer is gone: its events are for others, at once. Going is not failing, so even an
    /// event without retries gets one more delivery; but not for ever, since it may be the event
    /// that ends its consumers.
    pub(crate) fn leave(&mut self, member: u64) {
        for (offset, flight) in self.flights_of(member) {
            if flight.taken {
                let limit = flight.terms.limit.map(|limit| limit.max(1));
                let terms = Terms {
                    limit,
                    ..flight.terms
                };
                self.failed(offset, terms, State::Again);
            } else {
                self.withdrawn(offset);
            }
        }
        self.index.flying.remove(&member);
    }

    /// The consumer goes because we say so: nothing of it counts against its events.
    pub(crate) fn recall(&mut self, member: u64) {
        for (offset, flight) in self.flights_of(member) {
            if flight.taken {
                self.changed = true;
                self.turn(offset, State::Again);
            } else {
                self.withdrawn(offset);
            }
        }
        self.index.flying.remove(&member);
    }

    fn flights_of(&self, member: u64) -> Vec<(u64, Flight)> {
        if self.flying(member) == 0 {
            return Vec::new();
        }
        self.open
            .iter()
            .filter_map(|(offset, open)| match open.state {
                State::Flying(flight) if flight.member == member => Some((*offset, flight)),
                _ => None,
            })
            .collect()
    }

    /// Lets the time pass. Returns the next event that is late without anybody's fault; call again
    /// until there is none.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Stuck> {
        while let Some((due, offset)) = self.index.due.first().copied() {
            if due > now {
                break;
            }
            match self.open.get(&offset).map(|open| open.state) {
                Some(State::Flying(flight)) if flight.taken => {
                    self.failed(offset, flight.terms, State::Again);
                }
                Some(State::Flying(flight)) => {
                    return Some(Stuck {
                        offset,
                        member: flight.member,
                    });
                }
                Some(State::Resting(_)) => self.turn(offset, State::Again),
                _ => {
                    self.index.due.remove(&(due, offset));
                }
            }
        }
        None
    }

    /// The delivery did not happen: the event was taken back before the connection took it.
    pub(crate) fn withdrawn(&mut self, offset: u64) {
        if let Some(open) = self.open.get_mut(&offset) {
            open.deliveries = open.deliveries.saturating_sub(1);
        }
        self.turn(offset, State::Again);
    }

    /// Nobody else could take a stuck event: it gets its time once more.
    pub(crate) fn postpone(&mut self, offset: u64, now: Instant) {
        if let Some(State::Flying(flight)) = self.open.get(&offset).map(|open| open.state) {
            let due = now + flight.terms.wait;
            self.turn(offset, State::Flying(Flight { due, ..flight }));
        }
    }

    /// The event needs nobody any more.
    pub(crate) fn done(&mut self, offset: u64) {
        if let Some(open) = self.open.remove(&offset) {
            self.index.remove(offset, &open.state);
            if let Some(id) = open.id {
                self.ids.remove(&id);
            }
            self.changed = true;
        }
    }

    /// The topic keeps nothing below `first`. Returns how many events that were not done are gone.
    pub(crate) fn skip_below(&mut self, first: u64) -> u64 {
        let gone: Vec<u64> = self
            .open
            .range(..first)
            .map(|(offset, _)| *offset)
            .collect();
        let mut lost = gone.len() as u64;
        for offset in gone {
            self.done(offset);
        }
        if self.next < first {
            lost += first - self.next;
            self.next = first;
            self.changed = true;
        }
        lost
    }

    fn failed(&mut self, offset: u64, terms: Terms, otherwise: State) {
        let deliveries = self.open.get(&offset).map_or(0, |open| open.deliveries);
        let state = match terms.limit {
            Some(limit) if deliveries > limit => State::Dying,
            _ => otherwise,
        };
        self.changed = true;
        self.turn(offset, state);
    }

    fn flight(&self, offset: u64, member: u64) -> Option<Flight> {
        match self.open.get(&offset)?.state {
            State::Flying(flight) if flight.member == member => Some(flight),
            _ => None,
        }
    }

    fn turn(&mut self, offset: u64, state: State) {
        if let Some(open) = self.open.get_mut(&offset) {
            let before = std::mem::replace(&mut open.state, state);
            self.index.remove(offset, &before);
            self.index.insert(offset, &state);
        }
    }
}

#[cfg(test)]
mod tests;
