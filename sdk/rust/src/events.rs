//! Durable streams of events: published to a topic, kept, and consumed by groups that each see every
//! event once it is acknowledged, restarts included.
//!
//! ```no_run
//! use micro_sdk::{events::Start, serde::{Deserialize, Serialize}};
//!
//! #[derive(Serialize, Deserialize)]
//! # #[serde(crate = "micro_sdk::serde")]
//! struct Ordered {
//!     id: String,
//! }
//!
//! # async fn example() -> Result<(), micro_sdk::Error> {
//! let events = micro_sdk::mesh().events();
//! events.publish("orders", &Ordered { id: "o-1".into() }).await?;
//!
//! let mut orders = events.consume::<Ordered>("orders").group("billing").from(Start::Oldest).start();
//! while let Some(order) = orders.next().await {
//!     let order = order?;
//!     println!("order {}", order.payload.id);
//!     order.ack();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! An event that is not acknowledged in time is delivered again, perhaps to another member of the
//! group: what it causes should be the same when it comes twice. One that was delivered too often
//! goes to the topic's dead letters, `<topic>.dead`.

mod consumer;

use std::collections::HashMap;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Mesh, call,
    wire::events::{PublishBatchRequest, PublishBatchResponse, PublishRequest, PublishResponse},
};

pub use self::consumer::{Consume, Consumer, Event, Start};

/// The streams of events of the service's namespace. Made by [`Mesh::events`]; clones are cheap.
///
/// ```no_run
/// let events = micro_sdk::mesh().events();
/// ```
#[derive(Debug, Clone)]
pub struct Events {
    mesh: Mesh,
}

/// Where a published event is.
///
/// ```no_run
/// # async fn example(events: micro_sdk::events::Events) -> Result<(), micro_sdk::Error> {
/// let published = events.publish("orders", "o-1").await?;
/// println!("event {} is number {}", published.id, published.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its id, the same for whoever consumes it.
    pub id: String,
    /// Its place in the topic.
    pub offset: u64,
}

impl From<PublishResponse> for Published {
    fn from(response: PublishResponse) -> Self {
        Self {
            id: response.id,
            offset: response.offset,
        }
    }
}

impl Events {
    pub(crate) const fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// Publishes an event. It is on disk when this returns.
    ///
    /// ```no_run
    /// # async fn example(events: micro_sdk::events::Events) -> Result<(), micro_sdk::Error> {
    /// events.publish("orders", "o-1").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn publish<T: Serialize + ?Sized>(
        &self,
        topic: &str,
        payload: &T,
    ) -> Result<Published, Error> {
        self.publish_with(topic, payload, HashMap::new()).await
    }

    /// As [`publish`](Self::publish), with metadata beside the payload.
    ///
    /// ```no_run
    /// # async fn example(events: micro_sdk::events::Events) -> Result<(), micro_sdk::Error> {
    /// let metadata = [("source".to_owned(), "import".to_owned())];
    /// events.publish_with("orders", "o-1", metadata.into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn publish_with<T: Serialize + ?Sized>(
        &self,
        topic: &str,
        payload: &T,
        metadata: HashMap<String, String>,
    ) -> Result<Published, Error> {
        let request = event(topic, payload, metadata)?;
        let answer: Result<PublishResponse, _> =
            call::unary(&self.mesh, "/events.Stream/Publish", request).await;
        answer
            .map(Published::from)
            .map_err(|status| Error::call(publishing(topic), &status))
    }

    /// Publishes several events: all are kept, in this order and next to each other, or none.
    ///
    /// ```no_run
    /// # async fn example(events: micro_sdk::events::Events) -> Result<(), micro_sdk::Error> {
    /// events.publish_batch("orders", &["o-1", "o-2"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn publish_batch<'a, T: Serialize + 'a>(
        &self,
        topic: &str,
        payloads: impl IntoIterator<Item = &'a T>,
    ) -> Result<Vec<Published>, Error> {
        let payloads = payloads.into_iter();
        let events: Result<Vec<_>, _> = payloads
            .map(|payload| event(topic, payload, HashMap::new()))
            .collect();
        let request = PublishBatchRequest {
            events: events?,
            namespace: String::new(),
        };
        let answer: PublishBatchResponse =
            call::unary(&self.mesh, "/events.Stream/PublishBatch", request)
                .await
                .map_err(|status| Error::call(publishing(topic), &status))?;
        Ok(answer.events.into_iter().map(Published::from).collect())
    }

    /// Consumes a topic; see [`Consume`] for what can be chosen.
    ///
    /// ```no_run
    /// # async fn example(events: micro_sdk::events::Events) {
    /// let mut orders = events.consume::<String>("orders").group("billing").start();
    /// # }
    /// ```
    pub fn consume<T: DeserializeOwned + Send + 'static>(
        &self,
        topic: impl Into<String>,
    ) -> Consume<T> {
        Consume::new(self.mesh.clone(), topic.into())
    }
}

fn publishing(topic: &str) -> String {
    format!("publish to {topic}")
}

fn event<T: Serialize + ?Sized>(
    topic: &str,
    payload: &T,
    metadata: HashMap<String, String>,
) -> Result<PublishRequest, Error> {
    Ok(PublishRequest {
        topic: topic.to_owned(),
        metadata,
        payload: call::to_json(publishing(topic), payload)?,
        timestamp: 0,
        namespace: String::new(),
    })
}

#[cfg(test)]
mod tests;
