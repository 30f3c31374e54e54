//! The consumers of a group, their answers, and whose turn it is.

use std::{pin::Pin, sync::Arc, task, time::Duration};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream::SelectAll};

use super::{
    Answer, AnswerStream, Answers, Consume, Deliveries, MOST_IN_FLIGHT, Terms,
    ledger::Ledger,
    outbox::{Bell, Outbox},
};

/// After this, an event that waits for the connection of a consumer that does not answer may go to
/// another one.
const STUCK: Duration = Duration::from_secs(30);

/// One consumer.
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) terms: Terms,
    pub(super) outbox: Arc<Outbox>,
    /// How many events it may have.
    room: usize,
}

impl Member {
    /// How many events it can take now.
    fn room(&self, ledger: &Ledger) -> usize {
        let room = self.room.saturating_sub(ledger.flying(self.id));
        if room > 0 && self.outbox.has_room() {
            room
        } else {
            0
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Roster {
    /// In the order of their ids.
    members: Vec<Member>,
    pub(super) answers: SelectAll<Answered>,
    /// Ids given so far.
    serial: u64,
    turn: usize,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Member> {
        let at = self.members.binary_search_by_key(&id, |member| member.id);
        self.members.get(at.ok()?)
    }

    /// The way to a consumer that may be added next.
    pub(super) fn invite(
        &mut self,
        consume: &Consume,
        bell: &Arc<Bell>,
    ) -> (Arc<Outbox>, Deliveries) {
        self.serial += 1;
        Outbox::new(self.serial, consume.answers == Answers::No, bell)
    }

    /// Adds the consumer that was invited last. `last`: its events are not given up.
    pub(super) fn add(
        &mut self,
        consume: &Consume,
        outbox: Arc<Outbox>,
        answers: AnswerStream,
        last: bool,
    ) {
        let (auto, wait) = match consume.answers {
            Answers::No => (true, STUCK),
            Answers::Within(wait) => (false, wait),
        };
        let limit = consume.retries.filter(|_| !last);
        self.members.push(Member {
            id: self.serial,
            terms: Terms { auto, wait, limit },
            outbox,
            room: consume.room(),
        });
        self.answers.push(Answered {
            member: self.serial,
            answers,
        });
    }

    /// Removes those that are gone. Returns the answers that had come and were not heard yet.
    pub(super) fn remove(&mut self, gone: &[u64]) -> Vec<(u64, Answer)> {
        self.members.retain(|member| !gone.contains(&member.id));
        let answers = std::mem::take(&mut self.answers);
        let (left, stay): (Vec<Answered>, Vec<Answered>) = answers
            .into_iter()
            .partition(|answered| gone.contains(&answered.member));
        self.answers = stay.into_iter().collect();
        left.into_iter().flat_map(Answered::rest).collect()
    }

    /// Removes all, as [`Roster::remove`].
    pub(super) fn dismiss(&mut self) -> (Vec<Member>, Vec<(u64, Answer)>) {
        let answers = std::mem::take(&mut self.answers);
        let rest = answers.into_iter().flat_map(Answered::rest).collect();
        (std::mem::take(&mut self.members), rest)
    }

    /// How many events all of them can take.
    pub(super) fn room(&self, ledger: &Ledger) -> usize {
        self.members.iter().map(|member| member.room(ledger)).sum()
    }

    /// Whether anybody else than `id` can take an event.
    pub(super) fn has_room_besides(&self, id: u64, ledger: &Ledger) -> bool {
        let mut others = self.members.iter().filter(|member| member.id != id);
        others.any(|member| member.room(ledger) > 0)
    }

    /// Goes round to the next one that can take an event, if there is one.
    pub(super) fn advance(&mut self, ledger: &Ledger) -> bool {
        let count = self.members.len();
        let has_room = |at: &usize| self.members.get(*at).is_some_and(|m| m.room(ledger) > 0);
        let next = (self.turn + 1..=self.turn + count)
            .map(|at| at % count)
            .find(has_room);
        self.turn = next.unwrap_or(self.turn);
        next.is_some()
    }

    /// Whose turn it is.
    pub(super) fn current(&self) -> Option<&Member> {
        self.members.get(self.turn)
    }
}

/// The answers of one consumer, with who it is.
pub(super) struct Answered {
    member: u64,
    answers: AnswerStream,
}

impl Answered {
    /// What has come, without waiting; nobody can have more to say than what it was given.
    fn rest(mut self) -> Vec<(u64, Answer)> {
        std::iter::from_fn(|| self.next().now_or_never().flatten())
            .take(MOST_IN_FLIGHT as usize)
            .collect()
    }
}

impl Stream for Answered {
    type Item = (u64, Answer);

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<Option<Self::Item>> {
        let member = self.member;
        let answer = self.answers.poll_next_unpin(cx);
        answer.map(|answer| answer.map(|answer| (member, answer)))
    }
}
