//! A node with nothing but events, which can be stopped, killed and started again.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use micro_core::{Clock, Namespace, Timestamp};
use micro_events::{
    Answer, Answers, Consume, Deliveries, Error, Event, Handle, NewEvent, Service, Start,
};
use micro_storage::{Options, Storage};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// As long as anything may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Longer than anything takes that does happen.
pub(crate) const NEVER: Duration = Duration::from_millis(150);

pub(crate) struct Node {
    pub(crate) service: Service,
    pub(crate) handle: Handle,
    pub(crate) storage: Storage,
    pub(crate) clock: Clock,
    path: PathBuf,
    _dir: TempDir,
}

fn open(path: &std::path::Path, clock: &Clock) -> (Storage, Service) {
    let options = Options {
        memory: 1 << 20,
        segment: 1 << 20,
        clock: clock.clone(),
        ..Options::default()
    };
    let storage = Storage::open(path, options).unwrap();
    let service = Service::open(&storage, clock.clone());
    (storage, service)
}

impl Node {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("storage");
        let clock = Clock::fake(Timestamp(1_700_000_000_000));
        let (storage, service) = open(&path, &clock);
        Self {
            handle: service.handle(),
            service,
            storage,
            clock,
            path,
            _dir: dir,
        }
    }

    /// Stops in order, and starts again.
    pub(crate) async fn restart(self) -> Self {
        self.handle.stop().await;
        self.crash().await
    }

    /// Starts again without telling anybody: no group saves anything.
    pub(crate) async fn crash(self) -> Self {
        let Self {
            service,
            handle,
            storage,
            clock,
            path,
            _dir,
        } = self;
        storage.close();
        drop((service, handle, storage));
        let (storage, service) = open(&path, &clock);
        Self {
            handle: service.handle(),
            service,
            storage,
            clock,
            path,
            _dir,
        }
    }

    pub(crate) async fn publish(&self, namespace: &str, topic: &str, payload: &str) -> u64 {
        let events = vec![event(topic, payload)];
        let published = self.handle.publish(&ns(namespace), events).await.unwrap();
        published[0].offset
    }

    pub(crate) async fn consume(&self, namespace: &str, consume: Consume) -> Consumer {
        self.try_consume(namespace, consume).await.unwrap()
    }

    pub(crate) async fn try_consume(
        &self,
        namespace: &str,
        consume: Consume,
    ) -> Result<Consumer, Error> {
        let (answers, stream) = mpsc::unbounded_channel();
        let stream = UnboundedReceiverStream::new(stream).boxed();
        let deliveries = self.handle.consume(&ns(namespace), consume, stream).await?;
        Ok(Consumer {
            deliveries,
            answers,
        })
    }

    /// Waits until the group shows what is wanted.
    pub(crate) async fn group(
        &self,
        namespace: &str,
        wanted: impl Fn(&micro_events::GroupState) -> bool,
    ) -> micro_events::GroupState {
        let begun = std::time::Instant::now();
        loop {
            let groups = self.handle.groups(&ns(namespace), None).unwrap();
            if let Some(group) = groups.iter().find(|group| wanted(group)) {
                return group.clone();
            }
            assert!(begun.elapsed() < SOON, "{groups:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(crate) fn ns(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

pub(crate) fn event(topic: &str, payload: &str) -> NewEvent {
    NewEvent {
        topic: topic.into(),
        metadata: HashMap::from([("key".into(), "value".into())]),
        payload: payload.as_bytes().to_vec().into(),
        timestamp: 0,
    }
}

/// A consumer that answers.
pub(crate) fn ask(topic: &str, group: &str) -> Consume {
    Consume {
        topic: topic.into(),
        group: group.into(),
        start: Start::Now,
        answers: Answers::Within(SOON),
        retries: None,
        in_flight: 0,
    }
}

/// Answers of nobody.
pub(crate) fn silent() -> micro_events::AnswerStream {
    stream::pending().boxed()
}

pub(crate) struct Consumer {
    pub(crate) deliveries: Deliveries,
    pub(crate) answers: mpsc::UnboundedSender<Answer>,
}

impl Consumer {
    pub(crate) async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(SOON, self.deliveries.next());
        let next = next.await.expect("an event comes");
        next.expect("the stream goes on").unwrap().event().unwrap()
    }

    pub(crate) async fn payload(&mut self) -> String {
        payload(&self.next().await)
    }

    /// What came, answered with yes.
    pub(crate) async fn done(&mut self) -> String {
        let event = self.next().await;
        self.answer(&event, true);
        payload(&event)
    }

    pub(crate) fn answer(&self, event: &Event, success: bool) {
        let id = event.id.as_bytes().try_into().unwrap();
        let _ = self.answers.send(Answer { id, success });
    }

    pub(crate) async fn nothing(&mut self) {
        let next = tokio::time::timeout(NEVER, self.deliveries.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    /// Events that are there already.
    pub(crate) fn waiting(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.deliveries.next().now_or_never().flatten())
            .map(|delivery| delivery.unwrap().event().unwrap())
            .collect()
    }

    pub(crate) async fn end(&mut self) -> Error {
        let next = tokio::time::timeout(SOON, self.deliveries.next());
        let next = next.await.expect("an end comes");
        let error = next.expect("an error comes first").unwrap_err();
        assert!(self.deliveries.next().await.is_none());
        error
    }
}

pub(crate) fn payload(event: &Event) -> String {
    String::from_utf8(event.payload.to_vec()).unwrap()
}
