//! Flags and arguments of `micro events`.

use std::{ffi::OsString, str::FromStr};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use micro_core::{ByteSize, Span};

use crate::session;

/// `micro events`
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Events {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: EventsCommand,
}

/// Below `micro events`.
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Publish an event, or one for each line of stdin
    Publish(EventsPublish),
    /// Print events as they come, one a line
    Consume(EventsConsume),
    /// Print events that are kept, the oldest first
    Read(EventsRead),
    /// List the topics
    Topics,
    /// List the consumer groups
    Groups {
        /// Only those of this topic
        topic: Option<String>,
    },
    /// List the consumer groups, the one that is furthest behind first
    Lag {
        /// Only those of this topic
        topic: Option<String>,
    },
    /// Show or change how long and how much of a topic is kept
    Retention(EventsRetention),
    /// Delete a topic with its events and groups, or one group
    Delete {
        /// Topic
        topic: String,
        /// Only this group
        #[arg(long, short, value_name = "NAME")]
        group: Option<String>,
    },
}

/// `micro events publish`
#[derive(Debug, Args)]
pub(crate) struct EventsPublish {
    /// Topic; it is made if there is none
    pub(crate) topic: String,
    /// The event; - reads it from stdin as it is
    #[arg(allow_negative_numbers = true)]
    pub(crate) payload: Vec<OsString>,
    /// Sent with the event; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) metadata: Vec<String>,
    /// Publish each line of stdin that is not empty, many at a time
    #[arg(long)]
    pub(crate) batch_lines: bool,
}

/// `micro events consume`
#[derive(Debug, Args)]
pub(crate) struct EventsConsume {
    /// Topic
    pub(crate) topic: String,
    /// Consume as a member of this group, which remembers its place; without it every event is shown
    #[arg(long, short, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Where to begin: beginning, an offset, a time such as 2026-01-31T08:00:00Z, or 10m for ten minutes ago; what comes from now on if not given. A group that exists goes on where it is
    #[arg(long, short, value_name = "PLACE")]
    pub(crate) from: Option<Start>,
    /// Stop after so many events
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub(crate) limit: Option<u64>,
    /// Count an event as done when it is sent, not when it was printed
    #[arg(long)]
    pub(crate) auto_ack: bool,
    /// Time to print an event before another member gets it
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) ack_wait: Span,
    /// How often an event is sent again before it goes to the dead-letter topic; without end if not given
    #[arg(long, value_name = "NUMBER")]
    pub(crate) retries: Option<u32>,
}

/// `micro events read`
#[derive(Debug, Args)]
pub(crate) struct EventsRead {
    /// Topic
    pub(crate) topic: String,
    /// At most so many
    #[arg(long, short, value_name = "NUMBER", default_value_t = 250)]
    pub(crate) limit: u64,
    /// Leave out so many of the oldest
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) offset: u64,
}

/// `micro events retention`
#[derive(Debug, Args)]
pub(crate) struct EventsRetention {
    /// Topic
    pub(crate) topic: String,
    /// Keep events so long, such as 12h or 7d; 0 means without end
    #[arg(long, value_name = "TIME")]
    pub(crate) age: Option<Span>,
    /// Keep so much, such as 512MB or 1GB; 0 means without end
    #[arg(long, value_name = "SIZE")]
    pub(crate) size: Option<ByteSize>,
}

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Counted in events of the topic.
    Offset(u64),
    /// The first event from that time on, in Unix seconds.
    Time(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "beginning" {
            return Ok(Self::Offset(0));
        }
        if let Ok(offset) = text.parse() {
            return Ok(Self::Offset(offset));
        }
        let seconds = if let Ok(Span(ago)) = text.parse::<Span>() {
            let ago = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
            session::now().as_second().saturating_sub(ago)
        } else if let Ok(time) = text.parse::<Timestamp>() {
            time.as_second()
        } else {
            return Err(
                "write beginning, an offset such as 42, a time such as 2026-01-31T08:00:00Z, or 10m for ten minutes ago"
                    .into(),
            );
        };
        // The wire has no word for a time before all clocks.
        Ok(if seconds > 0 {
            Self::Time(seconds)
        } else {
            Self::Offset(0)
        })
    }
}
