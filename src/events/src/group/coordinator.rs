//! The task of one group while it has consumers: it waits for something to happen, and then brings
//! everything up to date in one turn.

use std::{collections::VecDeque, ops::ControlFlow, pin::Pin, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use micro_storage::Topic;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Sleep},
};

use super::{
    Answer, Key, Start, begin,
    hub::{Command, Join, Stats},
    ledger::Ledger,
    outbox::Bell,
    reader::{self, Page, Plan, Reading},
    roster::Roster,
    save::{self, Saved, Saver},
};
use crate::{
    Error,
    event::{Delivery, TopicLabel},
    name,
    topics::Topics,
};

/// Events of one group that may be open at the same time.
const MOST_OPEN: usize = 16 * 1024;
/// Events that are read at once.
const PAGE: usize = 1024;
/// Events that are read from files at once, even when there is less room for them.
const AHEAD: usize = 256;
/// Events to be delivered again that are read at once.
const AGAIN: usize = 64;
/// Answers that are taken in one turn.
const ANSWERS: usize = 512;
/// What a coordinator waits for.
enum Happening {
    Told(Command),
    Answered(u64, Answer),
    /// A consumer took something or left, the topic grew, or the time has come.
    Moved,
    Read(Result<Page, Error>),
    Saved(Saved),
    /// The storage is closed.
    Closed,
}

/// See the module.
pub(super) struct Coordinator {
    topics: Arc<Topics>,
    key: Key,
    label: TopicLabel,
    entries: Topic,
    inbox: mpsc::UnboundedReceiver<Command>,
    stats: Arc<Stats>,
    bell: Arc<Bell>,
    follow: watch::Receiver<u64>,
    ledger: Ledger,
    roster: Roster,
    /// Read, and not handed out yet.
    again: VecDeque<Delivery>,
    fresh: VecDeque<Delivery>,
    reading: Option<Reading>,
    /// `None` for a group that nobody remembers.
    saver: Option<Saver>,
}

impl Coordinator {
    pub(super) fn new(
        topics: Arc<Topics>,
        key: Key,
        inbox: mpsc::UnboundedReceiver<Command>,
        stats: Arc<Stats>,
    ) -> Self {
        let entries = topics.entries(&key.topic);
        Self {
            label: TopicLabel::new(&key.topic),
            // Before the bounds are read, so that nothing is missed in between.
            follow: entries.follow(),
            saver: key.named().map(|group| Saver::new(&topics, &key, group)),
            entries,
            topics,
            key,
            inbox,
            stats,
            bell: Arc::default(),
            ledger: Ledger::default(),
            roster: Roster::default(),
            again: VecDeque::new(),
            fresh: VecDeque::new(),
            reading: None,
        }
    }

    pub(super) async fn run(mut self, start: Start) {
        if let Err(error) = self.open(start).await {
            self.shut(&error).await;
            return;
        }
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        loop {
            if let Err(error) = self.catch_up() {
                tracing::error!(namespace = %self.topics.space().namespace(),
                    topic = %self.key.topic, %error, "A group of consumers ends.");
                self.shut(&error).await;
                return;
            }
            let idle = self.roster.is_empty() && self.saver.as_ref().is_none_or(Saver::is_clean);
            let happening = if idle {
                match self.topics.groups.retire(&self.key, &mut self.inbox) {
                    Some(command) => Happening::Told(command),
                    None => return,
                }
            } else {
                self.next(sleep.as_mut()).await
            };
            if self.happened(happening).await.is_break() {
                return;
            }
        }
    }

    async fn open(&mut self, start: Start) -> Result<(), Error> {
        let (position, bounds) = begin::position(&self.topics, &self.key, start).await?;
        self.ledger = Ledger::restore(&position);
        self.skip_below(bounds.first);
        Ok(())
    }

    /// Waits.
    async fn next(&mut self, mut sleep: Pin<&mut Sleep>) -> Happening {
        let hungry =
            self.fresh.is_empty() && self.reading.is_none() && self.roster.room(&self.ledger) > 0;
        let due = [self.ledger.next_due(), self.save_at()]
            .into_iter()
            .flatten()
            .min();
        if let Some(due) = due {
            sleep.as_mut().reset(due);
        }
        let saving = self.saver.as_ref().is_some_and(Saver::is_running);
        tokio::select! {
            told = self.inbox.recv() => told.map_or(Happening::Closed, Happening::Told),
            Some((member, answer)) = self.roster.answers.next(), if !self.roster.is_empty() => {
                Happening::Answered(member, answer)
            }
            () = self.bell.heard() => Happening::Moved,
            grown = self.follow.changed(), if hungry => match grown {
                Ok(()) => Happening::Moved,
                Err(_) => Happening::Closed,
            },
            read = reader::ended(&mut self.reading) => Happening::Read(read),
            saved = save::ended(&mut self.saver), if saving => Happening::Saved(saved),
            () = sleep, if due.is_some() => Happening::Moved,
        }
    }

    async fn happened(&mut self, happening: Happening) -> ControlFlow<()> {
        match happening {
            Happening::Moved => {}
            Happening::Answered(member, answer) => self.answered(member, answer),
            Happening::Told(Command::Join(join)) => self.join(join),
            Happening::Told(Command::Stop(error, told)) => {
                self.shut(&error).await;
                let _ = told.send(());
                return ControlFlow::Break(());
            }
            Happening::Read(page) => {
                self.reading = None;
                if let Err(error) = page.and_then(|page| self.file(page)) {
                    self.shut(&error).await;
                    return ControlFlow::Break(());
                }
            }
            Happening::Saved(saved) => self.saved(saved),
            Happening::Closed => {
                self.shut(&Error::Stopping).await;
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// One turn.
    fn catch_up(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        self.hear_members();
        self.expire(now);
        self.hand_out(now)?;
        match &mut self.saver {
            Some(saver) => {
                if self.ledger.take_changed() {
                    saver.touch(now);
                }
            }
            // Nobody remembers the group, so an event that it gives up is simply done.
            None => {
                let dying: Vec<u64> = self.ledger.dying().map(|(offset, _)| offset).collect();
                dying
                    .into_iter()
                    .for_each(|offset| self.ledger.done(offset));
            }
        }
        if self.save_at().is_some_and(|due| due <= now) {
            self.save();
        }
        self.stats.show(&self.ledger, self.roster.len());
        Ok(())
    }

    fn join(&mut self, join: Join) {
        let (outbox, deliveries) = self.roster.invite(&join.consume, &self.bell);
        if join.reply.send(Ok(deliveries)).is_ok() {
            // From the topic for dead events there is no further place to go.
            let last = name::is_dead(&self.key.topic);
            self.roster.add(&join.consume, outbox, join.answers, last);
        }
    }

    fn answered(&mut self, member: u64, answer: Answer) {
        let now = Instant::now();
        // What was taken is known before what is said about it.
        self.hear_members();
        self.answer(member, answer, now);
        for _ in 0..ANSWERS {
            let Some(Some((member, answer))) = self.roster.answers.next().now_or_never() else {
                break;
            };
            self.answer(member, answer, now);
        }
    }

    fn answer(&mut self, member: u64, answer: Answer, now: Instant) {
        if answer.success {
            self.ledger.ack(&answer.id);
        } else {
            self.ledger.nack(&answer.id, member, now);
        }
    }

    /// What the connections took, and which are gone.
    fn hear_members(&mut self) {
        let mut left = Vec::new();
        for id in self.bell.callers() {
            let Some(member) = self.roster.get(id) else {
                continue;
            };
            let news = member.outbox.news();
            for (offset, when) in news.taken {
                self.ledger.taken(offset, id, when);
            }
            if news.gone {
                left.push(id);
            }
        }
        if left.is_empty() {
            return;
        }
        // Their last words count.
        let now = Instant::now();
        for (member, answer) in self.roster.remove(&left) {
            self.answer(member, answer, now);
        }
        for id in left {
            self.ledger.leave(id);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(stuck) = self.ledger.expire(now) {
            let elsewhere = self.roster.has_room_besides(stuck.member, &self.ledger);
            let back = elsewhere
                && self
                    .roster
                    .get(stuck.member)
                    .is_some_and(|member| member.outbox.withdraw(stuck.offset));
            if back {
                self.ledger.withdrawn(stuck.offset);
            } else {
                self.ledger.postpone(stuck.offset, now);
            }
        }
    }

    /// Hands out what is read, and reads more, while somebody has room.
    fn hand_out(&mut self, now: Instant) -> Result<(), Error> {
        loop {
            let plan = self.plan();
            let planned = plan.is_some();
            if let Some(plan) = plan {
                self.read(plan)?;
            }
            let mut handed = false;
            while self.has_event() && self.roster.advance(&self.ledger) {
                let Some(delivery) = self.next_event() else {
                    break;
                };
                if let Some(member) = self.roster.current() {
                    let offset = delivery.offset;
                    let (id, terms) = (delivery.id(), member.terms);
                    let ledger = &mut self.ledger;
                    let number = ledger.hand_over(offset, id, member.id, terms, now);
                    member.outbox.push(delivery.numbered(number));
                    handed = true;
                }
            }
            if !planned && !handed {
                return Ok(());
            }
        }
    }

    /// Whether an event is there to be handed out. New ones wait for those that were given out
    /// before, which come first.
    fn has_event(&mut self) -> bool {
        while let Some(delivery) = self.again.front() {
            if self.ledger.is_again(delivery.offset) {
                return true;
            }
            self.again.pop_front();
        }
        !self.fresh.is_empty() && self.ledger.again().next().is_none()
    }

    fn next_event(&mut self) -> Option<Delivery> {
        self.again.pop_front().or_else(|| self.fresh.pop_front())
    }

    /// What to read next, if anything: first what was given out before.
    fn plan(&mut self) -> Option<Plan> {
        let room = self.roster.room(&self.ledger);
        if room == 0 || self.reading.is_some() {
            return None;
        }
        if self.again.is_empty() {
            let again: Vec<u64> = self.ledger.again().take(room.min(AGAIN)).collect();
            if !again.is_empty() {
                return Some(Plan::Again(again));
            }
        }
        let end = *self.follow.borrow_and_update();
        let next = self.ledger.next();
        if !self.fresh.is_empty() || next >= end {
            return None;
        }
        let wanted = if self.entries.is_recent(next) {
            room
        } else {
            room.max(AHEAD)
        };
        let free = MOST_OPEN.saturating_sub(self.ledger.open());
        let entries = wanted.min(PAGE).min(free);
        (entries > 0).then_some(Plan::Fresh(next, entries))
    }

    /// Reads at once, or by another thread when it takes a file.
    fn read(&mut self, plan: Plan) -> Result<(), Error> {
        if plan.is_recent(&self.entries) {
            let page = plan.read(&self.entries)?;
            return self.file(page);
        }
        let entries = self.entries.clone();
        let read = move || plan.read(&entries);
        self.reading = Some(tokio::task::spawn_blocking(read));
        Ok(())
    }

    /// Takes over what was read.
    fn file(&mut self, page: Page) -> Result<(), Error> {
        match page {
            Page::Again(entries) => {
                for (offset, entry) in entries {
                    match entry {
                        Some(entry) => {
                            let delivery = Delivery::new(&self.label, offset, &entry.value)?;
                            self.again.push_back(delivery);
                        }
                        // Dropped by the retention.
                        None => self.ledger.done(offset),
                    }
                }
            }
            Page::Fresh(from, entries) => {
                let first = match entries.first() {
                    Some(entry) => entry.offset,
                    // Everything was dropped, up to the end.
                    None => self.entries.bounds()?.first,
                };
                if first < from || (first == from && entries.is_empty()) {
                    return Err(Error::Unreadable {
                        topic: self.key.topic.as_ref().to_owned(),
                        offset: from,
                        reason: "the topic does not give it".to_owned(),
                    });
                }
                if first > from {
                    self.skip_below(first);
                }
                for entry in entries {
                    let delivery = Delivery::new(&self.label, entry.offset, &entry.value)?;
                    self.fresh.push_back(delivery);
                }
            }
        }
        Ok(())
    }

    fn skip_below(&mut self, first: u64) {
        let lost = self.ledger.skip_below(first);
        if lost > 0 {
            tracing::warn!(namespace = %self.topics.space().namespace(), topic = %self.key.topic,
                group = self.key.named().unwrap_or("(none)"), lost, first,
                "Events were dropped before a group could handle them; it goes on with the oldest.");
        }
    }

    fn save_at(&self) -> Option<Instant> {
        let hurry = self.roster.is_empty();
        self.saver.as_ref()?.due(self.ledger.open(), hurry)
    }

    fn save(&mut self) {
        if let Some(saver) = &mut self.saver {
            saver.start(self.ledger.position(), self.ledger.dying().collect());
        }
    }

    fn saved(&mut self, saved: Saved) {
        let now = Instant::now();
        let Some(saver) = &mut self.saver else {
            return;
        };
        let buried = saver.note(saved, now);
        // That they are done is saved already; other changes are not.
        let changed = self.ledger.take_changed();
        for offset in &buried {
            self.ledger.done(*offset);
        }
        self.ledger.take_changed();
        if changed || self.ledger.dying().next().is_some() {
            saver.touch(now);
        }
        if !buried.is_empty() {
            tracing::info!(namespace = %self.topics.space().namespace(), topic = %self.key.topic,
                group = self.key.named().unwrap_or_default(), events = buried.len(),
                "Events that no consumer could handle went to the topic for dead events.");
            self.topics.groups.gave_up(&self.key, buried.len() as u64);
        }
    }

    /// Saves what there is to save, ends every consumer with `error`, and is gone.
    async fn shut(&mut self, error: &Error) {
        self.hear_members();
        let (members, answers) = self.roster.dismiss();
        for (member, answer) in answers {
            self.answer(member, answer, Instant::now());
        }
        for member in &members {
            member.outbox.clear();
            self.ledger.recall(member.id);
        }
        self.reading = None;
        while let Some(saver) = &mut self.saver {
            if saver.is_running() {
                let saved = saver.ended().await;
                self.saved(saved);
            } else if self.ledger.take_changed() || saver.due(0, true).is_some() {
                // Once; a save that fails now will not succeed in a moment.
                saver.start(self.ledger.position(), self.ledger.dying().collect());
                let saved = saver.ended().await;
                self.saved(saved);
                self.saver = None;
            } else {
                break;
            }
        }
        // Now, and not before: while there are streams the runtime that this runs on is not stopped.
        for member in members {
            member.outbox.end(error.clone());
        }
        while let Some(command) = self.topics.groups.retire(&self.key, &mut self.inbox) {
            match command {
                Command::Join(join) => drop(join.reply.send(Err(error.clone()))),
                Command::Stop(_, told) => drop(told.send(())),
            }
        }
    }
}
