//! Why an event was not taken, delivered or found.

use micro_core::{Fault, Kind, caller::NoTarget, caller::NotAllowed};

/// A failure of streams of events or of the broker. Some texts are part of the contract with
/// Micro's clients.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request without a topic.
    #[error("Missing topic")]
    MissingTopic,
    /// A message to publish that is not there.
    #[error("Missing message")]
    MissingMessage,
    /// An anonymous caller of the broker.
    #[error("access denied to namespace")]
    NoAccount,
    /// A consumer that answers, and says no time for it.
    #[error("invalid AckWait passed, should be positive integer")]
    AckWait,
    /// A write into the store of events.
    #[error("Writing to the store directly is not supported")]
    NoWrite,
    /// A message that is not what its place asks for.
    #[error("cannot read a message of the consumer: {0}")]
    Frame(String),
    /// A batch for several namespaces.
    #[error("a batch is for one namespace")]
    OtherNamespace,
    /// The caller may not do this.
    #[error(transparent)]
    NotAllowed(#[from] NoTarget),
    /// A topic or a group with a name that cannot be.
    #[error("invalid {what} {value:?}: {rule}")]
    Name {
        /// `topic` or `group`.
        what: &'static str,
        /// What was asked for, shortened.
        value: String,
        /// What it must be like.
        rule: &'static str,
    },
    /// An event or a message beyond what one may hold.
    #[error("cannot publish to {topic}: {size} bytes are too many, the limit is {limit}")]
    TooLarge {
        /// Where it was to go.
        topic: String,
        /// Its size.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A batch with too many events.
    #[error("cannot publish {count} events at once, the limit is {limit}")]
    TooMany {
        /// How many there were.
        count: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The namespace has as many topics as it may have.
    #[error("cannot make the topic {topic}: the namespace has {limit} already, which is the most")]
    TooManyTopics {
        /// The one that is too many.
        topic: String,
        /// The most.
        limit: usize,
    },
    /// A retention that cannot be.
    #[error("cannot keep events for {0} seconds")]
    Retention(i64),
    /// There is no such topic.
    #[error("there is no topic {topic} in namespace {namespace}")]
    NoTopic {
        /// The topic.
        topic: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// There is no such group.
    #[error("there is no group {group} of topic {topic}")]
    NoGroup {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// An event that this version cannot read.
    #[error("the event {offset} of topic {topic} cannot be read: {reason}")]
    Unreadable {
        /// The topic.
        topic: String,
        /// Which event.
        offset: u64,
        /// Why.
        reason: String,
    },
    /// A group whose position this version cannot read.
    #[error("the position of group {group} of topic {topic} cannot be read: {reason}")]
    UnreadableGroup {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
        /// Why.
        reason: String,
    },
    /// Somebody removed what a consumer follows.
    #[error("the {what} was removed")]
    Removed {
        /// The topic or the group.
        what: String,
    },
    /// A subscriber that did not keep up.
    #[error("the subscriber of {topic} was too slow: {behind} messages behind")]
    TooSlow {
        /// The topic.
        topic: String,
        /// How many messages it had not taken.
        behind: usize,
    },
    /// The server stops.
    #[error("the server stops")]
    Stopping,
    /// The operating system gave no random bytes.
    #[error("cannot make the id of an event: the operating system gives no random bytes")]
    Random,
    /// The disk.
    #[error(transparent)]
    Storage(#[from] micro_storage::Error),
}

impl Error {
    /// The same, naming the topic that it is about.
    pub(crate) fn about(self, name: &str) -> Self {
        match self {
            Self::TooLarge { size, limit, .. } => Self::TooLarge {
                topic: name.to_owned(),
                size,
                limit,
            },
            other => other,
        }
    }
}

impl From<NotAllowed> for Error {
    fn from(error: NotAllowed) -> Self {
        Self::NotAllowed(error.into())
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::MissingTopic
            | Self::MissingMessage
            | Self::Frame(_)
            | Self::OtherNamespace
            | Self::Name { .. }
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::Retention(_) => Kind::Invalid,
            Self::NoAccount => Kind::Unauthenticated,
            // Micro says 500 here, and its clients know the text.
            Self::AckWait
            | Self::Unreadable { .. }
            | Self::UnreadableGroup { .. }
            | Self::Random => Kind::Internal,
            Self::NoWrite => Kind::Unimplemented,
            Self::NotAllowed(error) => error.kind(),
            Self::TooManyTopics { .. } | Self::TooSlow { .. } => Kind::Exhausted,
            Self::NoTopic { .. } | Self::NoGroup { .. } | Self::Removed { .. } => Kind::NotFound,
            Self::Stopping => Kind::Unavailable,
            Self::Storage(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Storage(error) => return error.hint(),
            Self::TooLarge { .. } => "put the data into a blob and publish its name",
            Self::TooMany { .. } => "publish them in several batches",
            Self::TooManyTopics { .. } => "delete topics that nobody needs",
            Self::Retention(_) => "0 keeps them without end",
            Self::NoTopic { .. } => "a topic comes into being when something is published to it",
            Self::TooSlow { .. } => "subscribe again; use events where each message must arrive",
            Self::Stopping => "consume again; nothing that was not acknowledged is lost",
            Self::Unreadable { .. } | Self::UnreadableGroup { .. } => {
                "a newer version of micro may have written it"
            }
            // The other texts are part of the contract, or say it all.
            _ => return None,
        };
        Some(text.into())
    }
}
