//! Streams that outlive the connection: opened again when the platform restarts or the network
//! breaks, with what each kind of stream needs to go on where it was.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_stream::Stream;
use tonic::Status;

use crate::{
    error::{Error, Kind},
    platform::detail,
    service::say,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A stream that lasted this long was a good one, even if nothing came.
const STEADY: Duration = Duration::from_secs(10);

/// The messages of one connection.
pub(crate) type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;
/// The opening of one connection.
pub(crate) type Opening<M> = Pin<Box<dyn Future<Output = Result<Messages<M>, Status>> + Send>>;

/// What a feed is made from.
pub(crate) trait Source: Send + 'static {
    /// What the platform sends.
    type Message: Send + 'static;
    /// What the user gets.
    type Item: Send + 'static;

    /// What it does, as in "cannot …".
    fn what(&self) -> String;

    /// Connects, telling the platform where to go on.
    fn open(&mut self) -> Opening<Self::Message>;

    /// Makes items of a message: none, one or several.
    fn take(&mut self, message: Self::Message, items: &mut Items<Self::Item>);
}

/// Items on their way to the user.
pub(crate) type Items<T> = VecDeque<Result<T, Error>>;

/// The stream that a user holds. Dropping it ends it.
pub(crate) struct Feed<T>(Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>);

impl<T: Send + 'static> Feed<T> {
    pub(crate) fn new(source: impl Source<Item = T>) -> Self {
        Self(Box::pin(Unfold {
            idle: Some(Connection::new(source)),
            turn: None,
        }))
    }
}

impl<T> Feed<T> {
    /// The next item. Nothing is lost when this is dropped and asked again.
    pub(crate) async fn next(&mut self) -> Option<Result<T, Error>> {
        poll_fn(|context| self.0.as_mut().poll_next(context)).await
    }

    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Error>>> {
        self.0.as_mut().poll_next(context)
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

/// Gives a public stream its `next`, `Stream` and `Debug`.
macro_rules! stream_of_feed {
    ($(#[$about:meta])* $name:ident$(<$type:ident>)? => $item:ty) => {
        impl$(<$type>)? $name$(<$type>)? {
            $(#[$about])*
            pub async fn next(&mut self) -> Option<Result<$item, $crate::Error>> {
                self.feed.next().await
            }
        }

        impl$(<$type>)? tokio_stream::Stream for $name$(<$type>)? {
            type Item = Result<$item, $crate::Error>;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                self.feed.poll_next(context)
            }
        }
    };
}
pub(crate) use stream_of_feed;

type Step<S> = (
    Option<Result<<S as Source>::Item, Error>>,
    Box<Connection<S>>,
);

/// Turns the steps of a connection into a stream; the step under way is kept between polls.
struct Unfold<S: Source> {
    idle: Option<Box<Connection<S>>>,
    turn: Option<Pin<Box<dyn Future<Output = Step<S>> + Send>>>,
}

// Nothing in it is pinned in place.
impl<S: Source> Unpin for Unfold<S> {}

impl<S: Source> Stream for Unfold<S> {
    type Item = Result<S::Item, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(mut idle) = self.idle.take() {
            // What is there already needs no step.
            if let Some(item) = idle.items.pop_front() {
                self.idle = Some(idle);
                return Poll::Ready(Some(item));
            }
            self.turn = Some(Box::pin(async move {
                let item = idle.next().await;
                (item, idle)
            }));
        }
        let Some(turn) = &mut self.turn else {
            return Poll::Ready(None);
        };
        match turn.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready((item, idle)) => {
                self.turn = None;
                self.idle = item.is_some().then_some(idle);
                Poll::Ready(item)
            }
        }
    }
}

struct Connection<S: Source> {
    source: S,
    messages: Option<Messages<S::Message>>,
    items: Items<S::Item>,
    pause: Duration,
    opened: Instant,
    /// It has worked before, so a refusal may be one of a platform that just starts.
    proven: bool,
    /// People were told that it is broken.
    told: bool,
    is_over: bool,
}

impl<S: Source> Connection<S> {
    fn new(source: S) -> Box<Self> {
        Box::new(Self {
            source,
            messages: None,
            items: VecDeque::new(),
            pause: FIRST_PAUSE,
            opened: Instant::now(),
            proven: false,
            told: false,
            is_over: false,
        })
    }

    async fn next(&mut self) -> Option<Result<S::Item, Error>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Some(item);
            }
            if self.is_over {
                return None;
            }
            let Some(messages) = &mut self.messages else {
                match self.source.open().await {
                    Ok(messages) => {
                        self.messages = Some(messages);
                        self.opened = Instant::now();
                    }
                    Err(status) => self.failed(&status).await,
                }
                continue;
            };
            match poll_fn(|context| messages.as_mut().poll_next(context)).await {
                Some(Ok(message)) => {
                    self.works();
                    self.source.take(message, &mut self.items);
                }
                Some(Err(status)) => self.failed(&status).await,
                None => {
                    self.failed(&Status::unavailable("the platform ended the stream"))
                        .await;
                }
            }
        }
    }

    fn works(&mut self) {
        self.proven = true;
        self.pause = FIRST_PAUSE;
        if std::mem::take(&mut self.told) {
            say(&format!("it works again: {}", self.source.what()));
        }
    }

    /// Ends the feed where trying again is no use, else waits before the next try.
    async fn failed(&mut self, status: &Status) {
        if self.messages.take().is_some() && self.opened.elapsed() >= STEADY {
            self.proven = true;
            self.pause = FIRST_PAUSE;
        }
        let error = Error::call(self.source.what(), status);
        match error.kind() {
            Kind::Unauthenticated if self.proven => {}
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Denied
            | Kind::NotFound
            | Kind::Precondition
            | Kind::Unimplemented => {
                self.is_over = true;
                self.items.push_back(Err(error));
                return;
            }
            // Something was lost, which the user wants to know; then it goes on.
            Kind::Exhausted => self.items.push_back(Err(error)),
            Kind::Conflict | Kind::Timeout | Kind::Unavailable | Kind::Internal => {}
        }
        // One line for each outage; a restart takes the first pauses and is not worth one.
        if self.pause > FIRST_PAUSE * 4 && !self.told {
            self.told = true;
            say(&format!(
                "cannot {} now: {}; trying again until it works",
                self.source.what(),
                detail(status)
            ));
        }
        sleep(jittered(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between three quarters of it and all of it, so that a thousand services do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 256;
    let random = u32::try_from(random).unwrap_or(0);
    pause - pause / 4 * random / 256
}

#[cfg(test)]
mod tests;
