//! `micro events`: durable streams of events.

use indicatif::HumanBytes;
use jiff::Timestamp;
use micro_core::{ByteSize, Span};
use micro_proto::events::{
    DeleteRequest, Event, Group, GroupsRequest, ReadRequest, Retention, SetRetentionRequest, Topic,
    TopicsRequest,
};
use serde_json::json;
use std::{cmp::Reverse, time::Duration};

use crate::{
    command_line::{EventsCommand, EventsRead, EventsRetention},
    context::Context,
    error::{Error, Result},
    line::{self, Object},
    printer::{Output, Printer},
    session::Session,
    table::{self, Padding},
};

mod consume;
mod publish;

/// Events that are asked for at once.
const PAGE: u64 = 250;

/// Does what `micro events ...` says.
pub(crate) async fn run(context: &Context, command: EventsCommand) -> Result<()> {
    match command {
        EventsCommand::Publish(args) => publish::run(context, args).await,
        EventsCommand::Consume(args) => consume::run(context, args).await,
        EventsCommand::Read(args) => read(context, args).await,
        EventsCommand::Topics => topics(context).await,
        EventsCommand::Groups { topic } => groups(context, topic, false).await,
        EventsCommand::Lag { topic } => groups(context, topic, true).await,
        EventsCommand::Retention(args) => retention(context, args).await,
        EventsCommand::Delete { topic, group } => delete(context, topic, group).await,
    }
}

/// Prints an event as one line, or its payload as it is with `--output raw`.
fn print(printer: Printer, event: &Event) -> Result<()> {
    match printer.output() {
        Output::Text => printer.line(&line::whole(&event.payload)),
        Output::Json => printer.line(&json(event)),
        Output::Raw => printer.write(&event.payload),
    }
}

fn json(event: &Event) -> String {
    let metadata: std::collections::BTreeMap<_, _> = event.metadata.iter().collect();
    let mut object = Object::new()
        .with("id", &event.id)
        .with("topic", &event.topic)
        .with("offset", event.offset)
        .with("time", Timestamp::from_second(event.timestamp).ok())
        .with("metadata", metadata);
    if event.delivery > 0 {
        object = object.with("delivery", event.delivery);
    }
    object.with_bytes("payload", &event.payload).finish()
}

async fn read(context: &Context, args: EventsRead) -> Result<()> {
    let session = Session::open(context).await?;
    let (mut offset, mut left) = (args.offset, args.limit);
    while left > 0 {
        let request = session.request(ReadRequest {
            namespace: session.namespace.to_string(),
            topic: args.topic.clone(),
            limit: left.min(PAGE),
            offset,
        });
        let answer = session.kept_events().read(request).await;
        let events = answer.map_err(|s| session.failure(s))?.into_inner().events;
        if events.is_empty() {
            break;
        }
        for event in &events {
            print(context.printer, event)?;
        }
        offset += events.len() as u64;
        left = left.saturating_sub(events.len() as u64);
    }
    Ok(())
}

async fn all_topics(session: &Session) -> Result<Vec<Topic>> {
    let request = session.request(TopicsRequest {
        namespace: session.namespace.to_string(),
    });
    let answer = session.events().topics(request).await;
    let mut topics = answer.map_err(|s| session.failure(s))?.into_inner().topics;
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(topics)
}

async fn topics(context: &Context) -> Result<()> {
    let session = Session::open(context).await?;
    let topics = all_topics(&session).await?;
    if context.printer.is_json() {
        let rows: Vec<_> = topics
            .iter()
            .map(|topic| {
                let kept = topic.retention.unwrap_or_default();
                json!({
                    "topic": topic.name,
                    "first": topic.first,
                    "next": topic.next,
                    "bytes": topic.bytes,
                    "retention": { "age_seconds": kept.age, "bytes": kept.bytes },
                })
            })
            .collect();
        return context.printer.json(&rows);
    }
    show(context.printer, topics.is_empty(), || topic_rows(&topics))
}

/// A table, or nothing when it has no rows.
fn show(printer: Printer, is_empty: bool, rows: impl FnOnce() -> String) -> Result<()> {
    if is_empty {
        return Ok(());
    }
    printer.write(table::align(&rows(), Padding::Spaces).as_bytes())
}

fn topic_rows(topics: &[Topic]) -> String {
    let mut text = String::from("TOPIC\tFIRST\tNEXT\tEVENTS\tSIZE\tKEPT\n");
    for topic in topics {
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\t{}\n",
            topic.name,
            topic.first,
            topic.next,
            topic.next.saturating_sub(topic.first),
            HumanBytes(topic.bytes),
            kept(topic.retention.unwrap_or_default()),
        ));
    }
    text
}

/// How long and how much, in words.
fn kept(retention: Retention) -> String {
    let age = u64::try_from(retention.age).unwrap_or(0);
    let age = (age > 0).then(|| Span(Duration::from_secs(age)).to_string());
    let size = (retention.bytes > 0).then(|| ByteSize(retention.bytes).to_string());
    let limits: Vec<_> = [age, size].into_iter().flatten().collect();
    if limits.is_empty() {
        return "without end".into();
    }
    limits.join(", ")
}

async fn groups(context: &Context, topic: Option<String>, by_lag: bool) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(GroupsRequest {
        namespace: session.namespace.to_string(),
        topic: topic.unwrap_or_default(),
    });
    let answer = session.events().groups(request).await;
    let mut groups = answer.map_err(|s| session.failure(s))?.into_inner().groups;
    groups.sort_by(|a, b| (&a.topic, &a.name).cmp(&(&b.topic, &b.name)));
    if by_lag {
        groups.sort_by_key(|group| Reverse(group.lag));
    }
    if context.printer.is_json() {
        let rows: Vec<_> = groups
            .iter()
            .map(|group| {
                json!({
                    "topic": group.topic,
                    "group": group.name,
                    "position": group.position,
                    "lag": group.lag,
                    "in_flight": group.in_flight,
                    "consumers": group.consumers,
                    "dead": group.dead,
                })
            })
            .collect();
        return context.printer.json(&rows);
    }
    show(context.printer, groups.is_empty(), || group_rows(&groups))
}

fn group_rows(groups: &[Group]) -> String {
    let mut text = String::from("TOPIC\tGROUP\tPOSITION\tLAG\tIN FLIGHT\tCONSUMERS\tDEAD\n");
    for group in groups {
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            group.topic,
            group.name,
            group.position,
            group.lag,
            group.in_flight,
            group.consumers,
            group.dead
        ));
    }
    text
}

/// Changes one limit or both; the other one stays as it is. Without any it shows them.
async fn retention(context: &Context, args: EventsRetention) -> Result<()> {
    let session = Session::open(context).await?;
    let topic = all_topics(&session)
        .await?
        .into_iter()
        .find(|topic| topic.name == args.topic)
        .ok_or_else(|| {
            Error::failed(format!(
                "there is no topic {} in namespace {}",
                args.topic, session.namespace
            ))
            .with_hint("`micro events topics` lists them; publishing to a topic makes it")
        })?;
    let old = topic.retention.unwrap_or_default();
    if args.age.is_none() && args.size.is_none() {
        if context.printer.is_json() {
            return context
                .printer
                .json(&json!({ "age_seconds": old.age, "bytes": old.bytes }));
        }
        return context.printer.line(&kept(old));
    }
    let age = match args.age {
        None => old.age,
        Some(Span(age)) if !age.is_zero() && age < Duration::from_secs(1) => {
            return Err(Error::usage("events cannot be kept for less than a second")
                .with_hint("--age 0 keeps them without end"));
        }
        Some(Span(age)) => i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
    };
    let request = session.request(SetRetentionRequest {
        namespace: session.namespace.to_string(),
        topic: args.topic,
        retention: Some(Retention {
            age,
            bytes: args.size.map_or(old.bytes, |size| size.0),
        }),
    });
    let answer = session.events().set_retention(request).await;
    answer.map_err(|s| session.failure(s))?;
    Ok(())
}

async fn delete(context: &Context, topic: String, group: Option<String>) -> Result<()> {
    if group.as_deref() == Some("") {
        // On the wire that would be the whole topic.
        return Err(Error::usage("the name of the group is empty")
            .with_hint("`micro events groups` lists the groups"));
    }
    let session = Session::open(context).await?;
    let request = session.request(DeleteRequest {
        namespace: session.namespace.to_string(),
        topic,
        group: group.unwrap_or_default(),
    });
    let answer = session.events().delete(request).await;
    answer.map_err(|s| session.failure(s))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_one_line_of_json() {
        let event = Event {
            id: "1".into(),
            topic: "orders".into(),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            payload: b"{\n \"n\": 1\n}".to_vec(),
            timestamp: 1_700_000_000,
            offset: 7,
            delivery: 1,
        };
        assert_eq!(
            json(&event),
            r#"{"id":"1","topic":"orders","offset":7,"time":"2023-11-14T22:13:20Z","metadata":{"k":"v"},"delivery":1,"payload":{"n": 1}}"#
        );
    }

    #[test]
    fn limits_are_told_in_words() {
        let kept = |age, bytes| kept(Retention { age, bytes });
        assert_eq!(kept(0, 0), "without end");
        assert_eq!(kept(7 * 86_400, 1 << 30), "7d, 1GiB");
        assert_eq!(kept(0, 1000), "1000");
    }

    #[test]
    fn tables_name_their_columns() {
        let topic = Topic {
            name: "orders".into(),
            first: 2,
            next: 10,
            bytes: 1024,
            retention: None,
        };
        assert_eq!(
            table::align(&topic_rows(&[topic]), Padding::Spaces),
            concat!(
                "TOPIC  FIRST NEXT EVENTS SIZE     KEPT\n",
                "orders 2     10   8      1.00 KiB without end\n",
            )
        );
    }
}
