//! Events that stay, and messages that do not.
//!
//! **Streams** are durable: a published event is on disk when the publisher is told so, and each
//! group of consumers gets each event at least once, whatever happens to the consumers or to the
//! node. **The broker** hands messages to whoever listens at that moment, and keeps nothing.
//!
//! Topics belong to a namespace. What is consumed and not answered is delivered again; an event that
//! was delivered as often as its group allows goes to the topic `<topic>.dead`, from where it does
//! not go further.
//!
//! | file | owns |
//! |---|---|
//! | `service.rs` | [`Service`] and [`Handle`]: publish, consume, read, and what there is |
//! | `event.rs` | [`NewEvent`], [`Event`], [`Delivery`]: an event before, after and on the way |
//! | `topics.rs` | the topics of a namespace, [`Retention`], and removing them |
//! | `group.rs`, `group/` | groups of consumers, below |
//! | `name.rs` | names of topics and groups |
//! | `grpc.rs`, `grpc/` | `events.Stream` and `events.Store` for Micro's clients |
//! | `broker.rs`, `broker/` | [`Broker`], and `broker.Broker` for Micro's clients |
//!
//! | file in `group/` | owns |
//! |---|---|
//! | `hub.rs` | the groups that have consumers now |
//! | `begin.rs` | where a group is when its first consumer comes |
//! | `coordinator.rs` | the task of such a group: reads, hands out, hears answers |
//! | `roster.rs` | its consumers, and whose turn it is |
//! | `ledger.rs` | what was handed out and what became of it; no I/O |
//! | `outbox.rs` | [`Deliveries`]: the way to one consumer's connection |
//! | `reader.rs` | pages of a topic |
//! | `save.rs` | saving positions, and giving up events |
//! | `position.rs` | a position as a row |

pub mod broker;
mod error;
mod event;
mod group;
mod grpc;
mod name;
mod service;
mod topics;

pub use broker::Broker;
pub use error::Error;
pub use event::{Delivery, Event, EventId, NewEvent, Published};
pub use group::{Answer, AnswerStream, Answers, Consume, Deliveries, GroupState, Start};
pub use grpc::{EventStoreServer, EventStreamServer};
pub use service::{Handle, Service};
pub use topics::{Retention, TopicState};
