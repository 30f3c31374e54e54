//! `events.Stream` and `events.Store` for Micro's clients and our own: who may do what, and
//! messages in and out. `Consume` has a codec of its own, in `consume.rs`.

use std::time::Duration;

use micro_core::{Caller, Namespace, Timestamp};
use micro_proto::{
    events::{
        self as wire, ConsumeRequest, DeleteRequest, DeleteResponse, Group, GroupsRequest,
        GroupsResponse, PublishBatchRequest, PublishBatchResponse, PublishRequest, PublishResponse,
        ReadRequest, ReadResponse, SetRetentionRequest, SetRetentionResponse, TopicsRequest,
        TopicsResponse, WriteRequest, WriteResponse, store_server, stream_server,
    },
    status,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Answers, Consume, Error, Event, GroupState, Handle, NewEvent, Published, Retention, Start,
    TopicState,
};

mod consume;

pub use consume::EventStreamServer;

/// `events.Store`, for mounting.
pub type EventStoreServer = store_server::StoreServer<Rpc>;

/// Bytes of one message from a client. Batches are as large as Micro's own server allows.
const LARGEST: usize = 32 << 20;

/// The gRPC face of streams of events.
#[derive(Debug, Clone)]
pub struct Rpc {
    handle: Handle,
}

pub(crate) fn store_server(handle: Handle) -> EventStoreServer {
    EventStoreServer::new(Rpc { handle })
}

/// Who asks; the doors say so, and without them nobody does.
pub(crate) fn caller<T>(request: &Request<T>) -> Caller {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(|| Caller::anonymous(Namespace::operator()))
}

/// A failure as `method` says it.
fn refuse(method: &'static str) -> impl Fn(Error) -> Status {
    move |error| status::of(method, &error)
}

/// The namespace of a request by one who may publish and consume there.
fn allowed(caller: &Caller, named: &str) -> Result<Namespace, Error> {
    Ok(caller.target_admin(named)?)
}

fn new_event(event: PublishRequest) -> NewEvent {
    NewEvent {
        topic: event.topic,
        metadata: event.metadata,
        payload: event.payload.into(),
        timestamp: event.timestamp,
    }
}

fn published(published: Published) -> PublishResponse {
    PublishResponse {
        id: published.id,
        offset: published.offset,
    }
}

fn event(event: Event) -> wire::Event {
    wire::Event {
        id: event.id,
        topic: event.topic,
        metadata: event.metadata,
        payload: event.payload.into(),
        timestamp: event.timestamp,
        offset: event.offset,
        delivery: event.delivery,
    }
}

fn consume_of(ask: ConsumeRequest) -> Result<Consume, Error> {
    let wait = u64::try_from(ask.ack_wait).unwrap_or(0);
    let answers = if ask.auto_ack {
        Answers::No
    } else if wait > 0 {
        Answers::Within(Duration::from_nanos(wait))
    } else {
        return Err(Error::AckWait);
    };
    let start = match ask.from {
        Some(offset) => Start::From(offset),
        None if ask.offset > 0 => Start::At(Timestamp(ask.offset.saturating_mul(1000))),
        None => Start::Now,
    };
    Ok(Consume {
        topic: ask.topic,
        group: ask.group,
        start,
        answers,
        retries: match ask.retry_limit {
            limit if limit < 0 => None,
            limit => Some(u32::try_from(limit).unwrap_or(u32::MAX)),
        },
        in_flight: ask.in_flight,
    })
}

fn retention_of(ask: wire::Retention) -> Result<Retention, Error> {
    let age = u64::try_from(ask.age).map_err(|_| Error::Retention(ask.age))?;
    Ok(Retention {
        age: (age > 0).then(|| Duration::from_secs(age)),
        bytes: (ask.bytes > 0).then_some(ask.bytes),
    })
}

fn topic(topic: TopicState) -> wire::Topic {
    let age = topic.retention.age.map_or(0, |age| age.as_secs());
    wire::Topic {
        name: topic.name,
        first: topic.bounds.first,
        next: topic.bounds.next,
        bytes: topic.bounds.bytes,
        retention: Some(wire::Retention {
            age: i64::try_from(age).unwrap_or(i64::MAX),
            bytes: topic.retention.bytes.unwrap_or(0),
        }),
    }
}

fn group(group: GroupState) -> Group {
    Group {
        topic: group.topic,
        name: group.name,
        position: group.position,
        lag: group.lag,
        in_flight: group.in_flight,
        consumers: group.consumers,
        dead: group.dead,
    }
}

#[tonic::async_trait]
impl stream_server::Stream for Rpc {
    type ConsumeStream = futures_util::stream::Empty<Result<wire::Event, Status>>;

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let refuse = refuse("events.Stream.Publish");
        let caller = caller(&request);
        let event = request.into_inner();
        let namespace = allowed(&caller, &event.namespace).map_err(&refuse)?;
        let events = vec![new_event(event)];
        let done = self.handle.publish(&namespace, events).await;
        let first = done.map_err(&refuse)?.into_iter().next();
        Ok(Response::new(first.map(published).unwrap_or_default()))
    }

    async fn consume(
        &self,
        _request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        // `EventStreamServer` answers this path; here the answers of consumers cannot be read.
        Err(Status::unimplemented("use EventStreamServer"))
    }

    async fn publish_batch(
        &self,
        request: Request<PublishBatchRequest>,
    ) -> Result<Response<PublishBatchResponse>, Status> {
        let refuse = refuse("events.Stream.PublishBatch");
        let caller = caller(&request);
        let batch = request.into_inner();
        let namespace = allowed(&caller, &batch.namespace).map_err(&refuse)?;
        let mut events = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            // All or none needs one namespace.
            if !event.namespace.is_empty()
                && allowed(&caller, &event.namespace).map_err(&refuse)? != namespace
            {
                return Err(refuse(Error::OtherNamespace));
            }
            events.push(new_event(event));
        }
        let done = self.handle.publish(&namespace, events).await;
        let events = done.map_err(&refuse)?.into_iter().map(published).collect();
        Ok(Response::new(PublishBatchResponse { events }))
    }

    async fn topics(
        &self,
        request: Request<TopicsRequest>,
    ) -> Result<Response<TopicsResponse>, Status> {
        let refuse = refuse("events.Stream.Topics");
        let caller = caller(&request);
        let namespace = allowed(&caller, &request.get_ref().namespace).map_err(&refuse)?;
        let topics = self.handle.topics(&namespace).map_err(&refuse)?;
        let topics = topics.into_iter().map(topic).collect();
        Ok(Response::new(TopicsResponse { topics }))
    }

    async fn groups(
        &self,
        request: Request<GroupsRequest>,
    ) -> Result<Response<GroupsResponse>, Status> {
        let refuse = refuse("events.Stream.Groups");
        let caller = caller(&request);
        let ask = request.into_inner();
        let namespace = allowed(&caller, &ask.namespace).map_err(&refuse)?;
        let topic = Some(ask.topic.as_str()).filter(|topic| !topic.is_empty());
        let groups = self.handle.groups(&namespace, topic).map_err(&refuse)?;
        let groups = groups.into_iter().map(group).collect();
        Ok(Response::new(GroupsResponse { groups }))
    }

    async fn set_retention(
        &self,
        request: Request<SetRetentionRequest>,
    ) -> Result<Response<SetRetentionResponse>, Status> {
        let refuse = refuse("events.Stream.SetRetention");
        let caller = caller(&request);
        let ask = request.into_inner();
        let namespace = allowed(&caller, &ask.namespace).map_err(&refuse)?;
        let retention = ask.retention.map(retention_of).transpose();
        let retention = retention.map_err(&refuse)?;
        self.handle
            .set_retention(&namespace, &ask.topic, retention)
            .await
            .map_err(&refuse)?;
        Ok(Response::new(SetRetentionResponse {}))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let refuse = refuse("events.Stream.Delete");
        let caller = caller(&request);
        let ask = request.into_inner();
        let namespace = allowed(&caller, &ask.namespace).map_err(&refuse)?;
        if ask.group.is_empty() {
            self.handle.delete_topic(&namespace, &ask.topic).await
        } else {
            let handle = &self.handle;
            handle
                .delete_group(&namespace, &ask.topic, &ask.group)
                .await
        }
        .map_err(&refuse)?;
        Ok(Response::new(DeleteResponse {}))
    }
}

#[tonic::async_trait]
impl store_server::Store for Rpc {
    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let refuse = refuse("events.Store.Read");
        let caller = caller(&request);
        let ask = request.into_inner();
        let namespace = allowed(&caller, &ask.namespace).map_err(&refuse)?;
        let read = self
            .handle
            .read(&namespace, &ask.topic, ask.offset, ask.limit);
        let events = read.await.map_err(&refuse)?;
        let events = events.into_iter().map(event).collect();
        Ok(Response::new(ReadResponse { events }))
    }

    async fn write(
        &self,
        _request: Request<WriteRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        Err(refuse("events.Store.Write")(Error::NoWrite))
    }
}
