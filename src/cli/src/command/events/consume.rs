//! `micro events consume`: an event is answered after it was printed, so that a pipe that breaks
//! loses none, and a restart of the server is waited for.

use std::{future::Future, pin::pin, time::Duration};

use bytes::Bytes;
use micro_proto::events::{AckRequest, ConsumeRequest, Event};
use prost::Message as _;
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::Streaming;

use crate::{
    command_line::{EventsConsume, Start},
    context::Context,
    error::{Error, Result},
    patience::{self, Patience},
    session::Session,
};

const PATH: &str = "/events.Stream/Consume";
/// How long the last answers have to be heard before we hang up, which nobody confirms.
const GRACE: Duration = Duration::from_millis(150);

/// Prints events until it is interrupted or has enough.
pub(super) async fn run(context: &Context, args: EventsConsume) -> Result<()> {
    if args.group.as_deref() == Some("") {
        return Err(Error::usage("the name of the group is empty")
            .with_hint("leave --group out to see every event without a group"));
    }
    if args.ack_wait.0.is_zero() && !args.auto_ack {
        return Err(Error::usage("--ack-wait must be more than nothing")
            .with_hint("write it like --ack-wait 30s, or use --auto-ack"));
    }
    if args.limit == Some(0) {
        return Ok(());
    }
    let mut consumer = Consumer {
        context,
        left: args.limit,
        args,
        next: None,
    };
    let mut patience = Patience::new(context.printer);
    let mut stop = pin!(patience::interrupted());
    loop {
        let is_again = patience.was_connected();
        let connection = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            connection = consumer.connect(is_again) => connection,
        };
        let error = match connection {
            Ok(mut connection) => {
                patience.connected();
                match consumer.print(&mut connection, stop.as_mut()).await {
                    Ok(()) => return connection.hang_up().await,
                    // What was printed is done, also when the next one cannot be.
                    Err(error @ Error::Output(_)) => {
                        connection.hang_up().await?;
                        return Err(error);
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            again = patience.wait(error) => again?,
        }
    }
}

struct Consumer<'a> {
    context: &'a Context,
    args: EventsConsume,
    /// How many more events to print.
    left: Option<u64>,
    /// For a consumer without a group: the offset after the last event.
    next: Option<u64>,
}

impl Consumer<'_> {
    async fn connect(&mut self, is_again: bool) -> Result<Connection> {
        let session = Session::open(self.context).await?;
        if self.args.group.is_none() && self.args.from.is_none() && self.next.is_none() {
            // From here on nothing is missed, even if the server restarts before the first event.
            self.next = end(&session, &self.args.topic).await;
        }
        let ask = self.ask(session.namespace.to_string(), is_again);
        let answers = if ask.auto_ack {
            Answers::None
        } else {
            Answers::Due
        };
        let (sender, acks) = mpsc::unbounded_channel();
        let frames = tokio_stream::once(Bytes::from(ask.encode_to_vec()))
            .chain(UnboundedReceiverStream::new(acks));
        let events = session.frames(PATH, frames).await?;
        Ok(Connection {
            session,
            events,
            acks: sender,
            answers,
        })
    }

    fn ask(&self, namespace: String, is_again: bool) -> ConsumeRequest {
        let group = self.args.group.clone().unwrap_or_default();
        // A group that was there once knows its place.
        let start = self.args.from.filter(|_| group.is_empty() || !is_again);
        let from = self.next.or(match start {
            Some(Start::Offset(offset)) => Some(offset),
            _ => None,
        });
        let offset = match start {
            Some(Start::Time(seconds)) if from.is_none() => seconds,
            _ => 0,
        };
        ConsumeRequest {
            // Nobody remembers what a consumer without a group has done.
            auto_ack: self.args.auto_ack || group.is_empty(),
            group,
            topic: self.args.topic.clone(),
            offset,
            ack_wait: i64::try_from(self.args.ack_wait.0.as_nanos()).unwrap_or(i64::MAX),
            retry_limit: self.args.retries.map_or(-1, i64::from),
            from,
            in_flight: self
                .left
                .map_or(0, |left| u32::try_from(left.min(256)).unwrap_or(256)),
            namespace,
        }
    }

    /// Prints until there is enough, which is no error, or the connection ends.
    async fn print(
        &mut self,
        connection: &mut Connection,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Result<()> {
        loop {
            let event = tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                event = connection.next() => event?,
            };
            super::print(self.context.printer, &event)?;
            connection.done(&event);
            if self.args.group.is_none() {
                self.next = Some(event.offset + 1);
            }
            if let Some(left) = &mut self.left {
                *left -= 1;
                if *left == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// The offset after the last event of a topic, if somebody can say.
async fn end(session: &Session, topic: &str) -> Option<u64> {
    let topics = super::all_topics(session).await.ok()?;
    let found = topics.iter().find(|found| found.name == topic);
    Some(found.map_or(0, |found| found.next))
}

struct Connection {
    session: Session,
    events: Streaming<Bytes>,
    acks: mpsc::UnboundedSender<Bytes>,
    answers: Answers,
}

/// Whether the server waits for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    None,
    /// None was sent yet.
    Due,
    Sent,
}

impl Connection {
    async fn next(&mut self) -> Result<Event> {
        let frame = self.events.message().await;
        let frame = frame
            .map_err(|s| self.session.failure(s))?
            .ok_or_else(patience::ended)?;
        Event::decode(frame).map_err(|e| {
            Error::failed(format!("the server sent something that is no event: {e}"))
                .with_hint("`micro version` and the server's version may differ")
        })
    }

    /// Says that the event was printed.
    fn done(&mut self, event: &Event) {
        if self.answers == Answers::None {
            return;
        }
        let ack = AckRequest {
            id: event.id.clone(),
            success: true,
        };
        // A connection that is gone shows when the next event is waited for.
        let _ = self.acks.send(ack.encode_to_vec().into());
        self.answers = Answers::Sent;
    }

    async fn hang_up(self) -> Result<()> {
        let Self {
            events,
            acks,
            answers,
            ..
        } = self;
        drop(acks);
        if answers == Answers::Sent {
            sleep(GRACE).await;
        }
        drop(events);
        Ok(())
    }
}
