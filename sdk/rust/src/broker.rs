//! Messages to whoever listens now: nothing is kept, nothing is acknowledged. Where each message
//! must arrive, use [`events`](crate::events).
//!
//! ```no_run
//! # async fn example() -> Result<(), micro_sdk::Error> {
//! let broker = micro_sdk::mesh().broker();
//! let mut news = broker.subscribe::<String>("news");
//! broker.publish("news", "hello").await?;
//! while let Some(message) = news.next().await {
//!     println!("{}", message?.body);
//! }
//! # Ok(())
//! # }
//! ```

use std::{collections::HashMap, fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Mesh, call,
    feed::{Feed, Items, Opening, Source, stream_of_feed},
    wire::broker::{self as wire, Empty, PublishRequest, SubscribeRequest},
};

/// Messages of the service's namespace. Made by [`Mesh::broker`]; clones are cheap.
///
/// ```no_run
/// let broker = micro_sdk::mesh().broker();
/// ```
#[derive(Debug, Clone)]
pub struct Broker {
    mesh: Mesh,
}

/// A message as it came.
///
/// ```no_run
/// # fn example(message: micro_sdk::broker::Message<String>) {
/// println!("{} by {:?}", message.body, message.header.get("Content-Type"));
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<T> {
    /// Names and values, those of the publisher's request included.
    pub header: HashMap<String, String>,
    /// What was published.
    pub body: T,
}

impl Broker {
    pub(crate) const fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// Sends a message to those who are subscribed to the topic.
    ///
    /// ```no_run
    /// # async fn example(broker: micro_sdk::broker::Broker) -> Result<(), micro_sdk::Error> {
    /// broker.publish("news", "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn publish<T: Serialize + ?Sized>(&self, topic: &str, body: &T) -> Result<(), Error> {
        let what = || format!("send a message to {topic}");
        let header = [
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("Micro-Topic".to_owned(), topic.to_owned()),
        ];
        let request = PublishRequest {
            topic: topic.to_owned(),
            message: Some(wire::Message {
                header: header.into(),
                body: call::to_json(what(), body)?,
            }),
        };
        let answer = call::unary(&self.mesh, "/broker.Broker/Publish", request).await;
        answer
            .map(|_: Empty| ())
            .map_err(|status| Error::call(what(), &status))
    }

    /// Every message of the topic from now on.
    ///
    /// ```no_run
    /// # async fn example(broker: micro_sdk::broker::Broker) {
    /// let mut news = broker.subscribe::<String>("news");
    /// # }
    /// ```
    pub fn subscribe<T: DeserializeOwned + Send + 'static>(&self, topic: &str) -> Subscription<T> {
        self.subscribe_queue(topic, "")
    }

    /// The messages of the topic, each for one subscriber of the queue.
    ///
    /// ```no_run
    /// # async fn example(broker: micro_sdk::broker::Broker) {
    /// let mut jobs = broker.subscribe_queue::<String>("jobs", "workers");
    /// # }
    /// ```
    pub fn subscribe_queue<T: DeserializeOwned + Send + 'static>(
        &self,
        topic: &str,
        queue: &str,
    ) -> Subscription<T> {
        Subscription {
            feed: Feed::new(Subscribing {
                mesh: self.mesh.clone(),
                request: SubscribeRequest {
                    topic: topic.to_owned(),
                    queue: queue.to_owned(),
                },
                body: PhantomData,
            }),
        }
    }
}

/// Messages as they come, beginning with the first wait for one.
///
/// It survives restarts of the platform: it subscribes again; messages of the meantime are lost. A
/// subscriber that is too slow is told so by an error of kind
/// [`Exhausted`](crate::Kind::Exhausted), and goes on. A body that is no `T` is an error of kind
/// [`Invalid`](crate::Kind::Invalid), after which it goes on, too.
///
/// ```no_run
/// # async fn example(broker: micro_sdk::broker::Broker) -> Result<(), micro_sdk::Error> {
/// let mut news = broker.subscribe::<String>("news");
/// while let Some(message) = news.next().await {
///     println!("{}", message?.body);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Subscription<T> {
    feed: Feed<Message<T>>,
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broker::Subscription")
    }
}

stream_of_feed! {
    /// The next message. Can be dropped and asked again; nothing is lost by that.
    ///
    /// ```no_run
    /// # async fn example(mut news: micro_sdk::broker::Subscription<String>) {
    /// let message = news.next().await;
    /// # }
    /// ```
    Subscription<T> => Message<T>
}

struct Subscribing<T> {
    mesh: Mesh,
    request: SubscribeRequest,
    body: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Source for Subscribing<T> {
    type Message = wire::Message;
    type Item = Message<T>;

    fn what(&self) -> String {
        format!("subscribe to {}", self.request.topic)
    }

    fn open(&mut self) -> Opening<wire::Message> {
        let (mesh, request) = (self.mesh.clone(), self.request.clone());
        Box::pin(async move {
            let messages = call::stream(&mesh, "/broker.Broker/Subscribe", request).await?;
            Ok(Box::pin(messages) as _)
        })
    }

    fn take(&mut self, message: wire::Message, items: &mut Items<Message<T>>) {
        let what = format_args!("read a message of {}", self.request.topic);
        let body = call::from_json(what, &message.body);
        items.push_back(body.map(|body| Message {
            header: message.header,
            body,
        }));
    }
}
