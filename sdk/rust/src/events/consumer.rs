//! Events as they are consumed: a stream that goes on where its group is, whatever breaks.

use std::{
    collections::HashMap,
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use prost::Message as _;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::Stream;
use tonic::{Status, codec::EncodeBuf};

use crate::{
    Mesh,
    call::{self, Frame},
    feed::{Feed, Items, Opening, Source, stream_of_feed},
    wire::events::{self as wire, AckRequest, ConsumeRequest},
};

/// How long an event may take when nobody says.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Deliveries after the first when nobody says.
const RETRIES: u32 = 10;

/// Where a consumer begins: one without a group, and a group that is new.
///
/// ```no_run
/// # fn example(events: micro_sdk::events::Events) {
/// use micro_sdk::events::Start;
///
/// let all = events.consume::<String>("orders").group("audit").from(Start::Oldest);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With what is published from now on.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Oldest,
    /// With the event at this offset.
    Offset(u64),
    /// With the first event of this time or later, by the second.
    Time(SystemTime),
}

/// How a topic is consumed. Made by [`Events::consume`](super::Events::consume).
///
/// ```no_run
/// # async fn example(events: micro_sdk::events::Events) {
/// use std::time::Duration;
///
/// let mut orders = events
///     .consume::<String>("orders")
///     .group("billing")
///     .ack_within(Duration::from_secs(60))
///     .in_flight(16)
///     .start();
/// # }
/// ```
#[must_use = "nothing is consumed before the start"]
pub struct Consume<T> {
    mesh: Mesh,
    request: ConsumeRequest,
    payload: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Consume<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consume")
            .field("topic", &self.request.topic)
            .field("group", &self.request.group)
            .finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + Send + 'static> Consume<T> {
    pub(super) fn new(mesh: Mesh, topic: String) -> Self {
        let request = ConsumeRequest {
            topic,
            ack_wait: nanoseconds(ACK_WAIT),
            retry_limit: i64::from(RETRIES),
            ..ConsumeRequest::default()
        };
        Self {
            mesh,
            request,
            payload: PhantomData,
        }
    }

    /// Shares the events with the other members of this group: each goes to one of them, and the
    /// platform remembers how far the group is. Without a group the consumer sees every event, and
    /// its place is forgotten with it.
    ///
    /// ```no_run
    /// # fn example(events: micro_sdk::events::Events) {
    /// let consume = events.consume::<String>("orders").group("billing");
    /// # }
    /// ```
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.request.group = group.into();
        self
    }

    /// Where to begin, if the group is new or there is none.
    ///
    /// ```no_run
    /// # fn example(events: micro_sdk::events::Events) {
    /// use micro_sdk::events::Start;
    ///
    /// let consume = events.consume::<String>("orders").from(Start::Offset(100));
    /// # }
    /// ```
    pub fn from(mut self, start: Start) -> Self {
        self.request.from = match start {
            Start::Oldest => Some(0),
            Start::Offset(offset) => Some(offset),
            Start::Now | Start::Time(_) => None,
        };
        self.request.offset = match start {
            Start::Time(time) => time
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(1, |since| {
                    i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)
                }),
            Start::Now | Start::Oldest | Start::Offset(_) => 0,
        };
        self
    }

    /// How long an event may take to be acknowledged before it is delivered again; 30 seconds unless
    /// set.
    ///
    /// ```no_run
    /// # fn example(events: micro_sdk::events::Events) {
    /// use std::time::Duration;
    ///
    /// let consume = events.consume::<String>("orders").ack_within(Duration::from_secs(60));
    /// # }
    /// ```
    pub fn ack_within(mut self, limit: Duration) -> Self {
        self.request.ack_wait = nanoseconds(limit).max(1);
        self.request.auto_ack = false;
        self
    }

    /// Counts every event as done when it was sent: it may be lost when the service dies.
    ///
    /// ```no_run
    /// # fn example(events: micro_sdk::events::Events) {
    /// let consume = events.consume::<String>("metrics").auto_ack();
    /// # }
    /// ```
    pub fn auto_ack(mut self) -> Self {
        self.request.auto_ack = true;
        self
    }

    /// How often an event is delivered again before it goes to the dead letters; 10 unless set,
    /// `None` without end.
    ///
    /// ```no_run
    /// # fn example(events: micro_sdk::events::Events) {
    /// let consume = events.consume::<String>("orders").retries(None);
    /// # }
    /// ```
    pub fn retries(mut self, limit: impl Into<Option<u32>>) -> Self {
        self.request.retry_limit = limit.into().map_or(-1, i64::from);
        self
    }

    /// How many events may wait for an answer at the same time; 256 unless set.
    ///
    /// ```no_run
    /// # fn example(events: micro_sdk::events::Events) {
    /// let consume = events.consume::<String>("orders").in_flight(1);
    /// # }
    /// ```
    pub fn in_flight(mut self, limit: u32) -> Self {
        self.request.in_flight = limit;
        self
    }

    /// Starts: nothing is sent before the first event is asked for.
    ///
    /// ```no_run
    /// # fn example(events: micro_sdk::events::Events) {
    /// let mut orders = events.consume::<String>("orders").group("billing").start();
    /// # }
    /// ```
    pub fn start(self) -> Consumer<T> {
        Consumer {
            feed: Feed::new(Consuming {
                mesh: self.mesh,
                request: self.request,
                answers: Answers::default(),
                payload: PhantomData,
            }),
        }
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The events of a topic as they come.
///
/// It survives restarts of the platform: it connects again, and goes on where the group is, or after
/// the last event that it saw when it has no group. A payload that is no `T` is an error of kind
/// [`Invalid`](crate::Kind::Invalid), counts as not acknowledged, and the consumer goes on.
///
/// ```no_run
/// # async fn example(events: micro_sdk::events::Events) -> Result<(), micro_sdk::Error> {
/// let mut orders = events.consume::<String>("orders").group("billing").start();
/// while let Some(order) = orders.next().await {
///     let order = order?;
///     println!("{}", order.payload);
///     order.ack();
/// }
/// # Ok(())
/// # }
/// ```
pub struct Consumer<T> {
    feed: Feed<Event<T>>,
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("events::Consumer")
    }
}

stream_of_feed! {
    /// The next event. Can be dropped and asked again; nothing is lost by that.
    ///
    /// ```no_run
    /// # async fn example(mut orders: micro_sdk::events::Consumer<String>) {
    /// let order = orders.next().await;
    /// # }
    /// ```
    Consumer<T> => Event<T>
}

/// An event as it was delivered.
///
/// ```no_run
/// # async fn example(mut orders: micro_sdk::events::Consumer<String>) -> Result<(), micro_sdk::Error> {
/// if let Some(order) = orders.next().await.transpose()? {
///     println!("{} at offset {}", order.payload, order.offset);
///     order.ack();
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "an event that is not acknowledged is delivered again"]
pub struct Event<T> {
    /// Its id, the same at each delivery.
    pub id: String,
    /// Its topic.
    pub topic: String,
    /// What was said beside the payload.
    pub metadata: HashMap<String, String>,
    /// What was published.
    pub payload: T,
    /// When, by the second.
    pub time: SystemTime,
    /// Its place in the topic.
    pub offset: u64,
    /// 1 at the first delivery.
    pub delivery: u32,
    answers: Answers,
}

impl<T> Event<T> {
    /// Says that it is done. When that does not reach the platform, it comes again.
    ///
    /// ```no_run
    /// # fn example(order: micro_sdk::events::Event<String>) {
    /// order.ack();
    /// # }
    /// ```
    pub fn ack(&self) {
        self.answers.send(&self.id, true);
    }

    /// Says that it could not be done, so that it comes again.
    ///
    /// ```no_run
    /// # fn example(order: micro_sdk::events::Event<String>) {
    /// order.nack();
    /// # }
    /// ```
    pub fn nack(&self) {
        self.answers.send(&self.id, false);
    }
}

/// The way of the answers to the platform: that of the connection of now.
#[derive(Debug, Clone, Default)]
struct Answers(Arc<Mutex<Option<UnboundedSender<ConsumeFrame>>>>);

impl Answers {
    fn send(&self, id: &str, success: bool) {
        let answer = ConsumeFrame::Ack(AckRequest {
            id: id.to_owned(),
            success,
        });
        let way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a connection, or by one that just broke, it is lost, and the event comes again.
        if let Some(way) = way.as_ref() {
            way.send(answer).ok();
        }
    }

    /// The frames of a new connection, the question first. Answers go to it from now on.
    fn begin(&self, request: ConsumeRequest) -> Frames {
        let (way, frames) = unbounded_channel();
        way.send(ConsumeFrame::Consume(request)).ok();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
        Frames(frames)
    }
}

/// What a consumer sends: one question, then answers.
#[derive(Debug)]
enum ConsumeFrame {
    Consume(ConsumeRequest),
    Ack(AckRequest),
}

impl Frame for ConsumeFrame {
    fn write(self, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let written = match self {
            Self::Consume(request) => request.encode(out),
            Self::Ack(answer) => answer.encode(out),
        };
        written.map_err(|error| Status::internal(error.to_string()))
    }
}

struct Frames(UnboundedReceiver<ConsumeFrame>);

impl Stream for Frames {
    type Item = ConsumeFrame;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<ConsumeFrame>> {
        self.0.poll_recv(context)
    }
}

struct Consuming<T> {
    mesh: Mesh,
    request: ConsumeRequest,
    answers: Answers,
    payload: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Source for Consuming<T> {
    type Message = wire::Event;
    type Item = Event<T>;

    fn what(&self) -> String {
        format!("consume {}", self.request.topic)
    }

    fn open(&mut self) -> Opening<wire::Event> {
        let mesh = self.mesh.clone();
        let frames = self.answers.begin(self.request.clone());
        Box::pin(async move {
            let events = call::duplex(&mesh, "/events.Stream/Consume", frames).await?;
            Ok(Box::pin(events) as _)
        })
    }

    fn take(&mut self, event: wire::Event, items: &mut Items<Event<T>>) {
        if self.request.group.is_empty() {
            // Nobody remembers the place of a consumer without a group but itself. An event that is
            // delivered again does not bring it back.
            let next = event.offset.saturating_add(1);
            self.request.from = self.request.from.max(Some(next));
        }
        let what = format_args!("read event {} of {}", event.offset, event.topic);
        match call::from_json(what, &event.payload) {
            Ok(payload) => items.push_back(Ok(Event {
                id: event.id,
                topic: event.topic,
                metadata: event.metadata,
                payload,
                time: SystemTime::UNIX_EPOCH
                    + Duration::from_secs(u64::try_from(event.timestamp).unwrap_or(0)),
                offset: event.offset,
                delivery: event.delivery,
                answers: self.answers.clone(),
            })),
            Err(error) => {
                self.answers.send(&event.id, false);
                items.push_back(Err(error));
            }
        }
    }
}
