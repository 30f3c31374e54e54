//! Services as they are, then as they change, across restarts of the platform.

use std::{collections::BTreeMap, fmt};

use tokio_stream::StreamExt as _;
use tonic::Streaming;

use super::Service;
use crate::{
    Mesh, call,
    feed::{Feed, Items, Opening, Source, stream_of_feed},
    wire::registry::{self as wire, ListRequest, Services, WatchRequest},
};

pub(super) const LIST: &str = "/registry.Registry/ListServices";

/// What a [`Watch`] tells.
///
/// ```no_run
/// # fn example(change: micro_sdk::registry::Change) {
/// use micro_sdk::registry::Change;
///
/// match change {
///     Change::Present(service) => println!("{} is there", service.name),
///     Change::Gone { name, .. } => println!("{name} is gone"),
///     _ => {}
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A version of a service that is there, is new, or has other nodes or endpoints than before.
    Present(Service),
    /// A version of a service that is gone.
    Gone {
        /// The service.
        name: String,
        /// Its version.
        version: String,
    },
    /// Every service as it is has been told; what follows are changes. Told once.
    Current,
}

/// The services as they are, then [`Change::Current`], then each change.
///
/// It survives restarts of the platform: it connects again and tells what changed meanwhile.
///
/// ```no_run
/// # async fn example(registry: micro_sdk::registry::Registry) -> Result<(), micro_sdk::Error> {
/// let mut changes = registry.watch();
/// while let Some(change) = changes.next().await {
///     println!("{:?}", change?);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Watch {
    feed: Feed<Change>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("registry::Watch")
    }
}

impl Watch {
    pub(super) fn new(mesh: Mesh) -> Self {
        Self {
            feed: Feed::new(Watching {
                mesh,
                known: BTreeMap::new(),
                is_current: false,
            }),
        }
    }
}

stream_of_feed! {
    /// The next change. Can be dropped and asked again; nothing is lost by that.
    ///
    /// ```no_run
    /// # async fn example(mut watch: micro_sdk::registry::Watch) {
    /// let change = watch.next().await;
    /// # }
    /// ```
    Watch => Change
}

enum Message {
    /// Every service, at the beginning of a connection.
    All(Vec<wire::Service>),
    /// Something happened to one.
    One(wire::Event),
}

struct Watching {
    mesh: Mesh,
    /// What the user was told, by name and version.
    known: BTreeMap<(String, String), Service>,
    /// The user was told [`Change::Current`].
    is_current: bool,
}

impl Watching {
    fn present(&mut self, service: wire::Service, items: &mut Items<Change>) {
        let service = Service::from(service);
        let key = (service.name.clone(), service.version.clone());
        if self.known.get(&key) != Some(&service) {
            self.known.insert(key, service.clone());
            items.push_back(Ok(Change::Present(service)));
        }
    }

    fn gone(&mut self, key: (String, String), items: &mut Items<Change>) {
        if self.known.remove(&key).is_some() {
            let (name, version) = key;
            items.push_back(Ok(Change::Gone { name, version }));
        }
    }
}

impl Source for Watching {
    type Message = Message;
    type Item = Change;

    fn what(&self) -> String {
        "watch the services".to_owned()
    }

    fn open(&mut self) -> Opening<Message> {
        let mesh = self.mesh.clone();
        Box::pin(async move {
            // First the watch, then the list, so that nothing falls in between.
            let events: Streaming<wire::Event> =
                call::stream(&mesh, "/registry.Registry/Watch", WatchRequest::default()).await?;
            let all: Services = call::unary(&mesh, LIST, ListRequest { options: None }).await?;
            let first = tokio_stream::once(Ok(Message::All(all.services)));
            let events = events.map(|event| event.map(Message::One));
            Ok(Box::pin(first.chain(events)) as _)
        })
    }

    fn take(&mut self, message: Message, items: &mut Items<Change>) {
        match message {
            Message::All(services) => {
                let mut unseen = self.known.clone();
                for service in services {
                    unseen.remove(&(service.name.clone(), service.version.clone()));
                    self.present(service, items);
                }
                for key in unseen.into_keys() {
                    self.gone(key, items);
                }
                if !self.is_current {
                    self.is_current = true;
                    items.push_back(Ok(Change::Current));
                }
            }
            Message::One(wire::Event {
                action,
                service: Some(service),
                ..
            }) => {
                if action == "delete" {
                    self.gone((service.name, service.version), items);
                } else {
                    self.present(service, items);
                }
            }
            Message::One(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, node: &str) -> wire::Service {
        wire::Service {
            name: name.to_owned(),
            version: "latest".to_owned(),
            nodes: vec![wire::Node {
                id: node.to_owned(),
                ..wire::Node::default()
            }],
            ..wire::Service::default()
        }
    }

    /// What the user is told of a message, in short.
    fn told(watching: &mut Watching, message: Message) -> Vec<String> {
        let mut items = Items::new();
        watching.take(message, &mut items);
        let short = |change| match change {
            Change::Present(service) => format!("{}@{}", service.name, service.nodes[0].id),
            Change::Gone { name, .. } => format!("-{name}"),
            Change::Current => "current".to_owned(),
        };
        items.into_iter().map(|item| short(item.unwrap())).collect()
    }

    fn event(action: &str, service: wire::Service) -> Message {
        Message::One(wire::Event {
            action: action.to_owned(),
            service: Some(service),
            timestamp: 0,
        })
    }

    #[test]
    fn a_new_connection_tells_only_what_changed_meanwhile() {
        let mut watching = Watching {
            mesh: crate::mesh(),
            known: BTreeMap::new(),
            is_current: false,
        };
        let all = vec![service("a", "1"), service("b", "1")];
        let first = told(&mut watching, Message::All(all));
        assert_eq!(first, ["a@1", "b@1", "current"]);
        assert_eq!(
            told(&mut watching, event("create", service("c", "1"))),
            ["c@1"]
        );
        assert!(told(&mut watching, event("update", service("c", "1"))).is_empty());

        // The platform restarts: a has another node, b is gone.
        let all = vec![service("a", "2"), service("c", "1")];
        assert_eq!(told(&mut watching, Message::All(all)), ["a@2", "-b"]);
        assert_eq!(
            told(&mut watching, event("delete", service("c", "1"))),
            ["-c"]
        );
    }
}
