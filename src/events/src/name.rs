//! Names of topics and groups. Micro takes any text; we ask for one that can be read.

use crate::Error;

/// Bytes of a name.
const LONGEST: usize = 255;
/// What the name of a topic for events that nobody could handle ends with.
const DEAD: &str = ".dead";

/// Checks the name of a topic.
pub(crate) fn topic(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::MissingTopic);
    }
    check("topic", name)
}

/// Checks the name of a group.
pub(crate) fn group(name: &str) -> Result<(), Error> {
    check("group", name)
}

/// Where the events of `topic` go that no consumer could handle.
pub(crate) fn dead(topic: &str) -> String {
    format!("{topic}{DEAD}")
}

/// Whether events end here: they go nowhere when they cannot be handled.
pub(crate) fn is_dead(topic: &str) -> bool {
    topic.ends_with(DEAD)
}

fn check(what: &'static str, name: &str) -> Result<(), Error> {
    if !name.is_empty() && name.len() <= LONGEST && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::Name {
        what,
        value: name.chars().take(80).collect(),
        rule: "use 1 to 255 bytes without control characters",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_names_pass() {
        for name in ["orders", "orders.created", "a/b c", "žluť"] {
            assert!(topic(name).is_ok(), "{name}");
            assert!(group(name).is_ok(), "{name}");
        }
        assert!(matches!(topic(""), Err(Error::MissingTopic)));
        for name in ["a\0b", "a\nb", &"x".repeat(256)] {
            assert!(matches!(topic(name), Err(Error::Name { .. })), "{name}");
        }
        assert!(is_dead(&dead("orders")));
        assert!(!is_dead("orders"));
    }
}
