//! The words of a dynamic command: service, endpoint, flags.

use std::ffi::OsString;

use crate::error::{Error, Result};

/// A command line for a service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// The service.
    pub(crate) service: String,
    /// What was said between service and flags.
    pub(crate) endpoint: Vec<String>,
    /// Names and values; no value is the empty text.
    pub(crate) flags: Vec<(String, String)>,
    /// Whether help was asked for.
    pub(crate) wants_help: bool,
}

impl Words {
    /// Reads `--name=value`, `--name value`, `--switch`, and one dash for two. What follows a flag
    /// without a value is its value, unless it looks like a flag; `--` ends the flags.
    pub(crate) fn parse(words: Vec<OsString>) -> Result<Self> {
        let mut out = Self::default();
        let mut open: Option<String> = None;
        let mut only_words = false;
        for (i, word) in words.into_iter().enumerate() {
            let word = word.into_string().map_err(|w| {
                Error::usage(format!("{:?} is not valid UTF-8", w.to_string_lossy()))
            })?;
            if i == 0 {
                out.service = word;
                continue;
            }
            if only_words || !is_flag(&word) {
                match open.take() {
                    Some(name) if !only_words => out.flags.push((name, word)),
                    _ => out.endpoint.push(word),
                }
                continue;
            }
            if let Some(name) = open.take() {
                out.flags.push((name, String::new()));
            }
            let bare = word.trim_start_matches('-');
            match bare.split_once('=') {
                _ if bare.is_empty() => only_words = true,
                Some(("", _)) => {
                    return Err(Error::usage(format!(
                        "Invalid flag: {word}. Expected format: --foo=bar"
                    ))
                    .with_exit(128));
                }
                Some((name, value)) => out.flags.push((name.into(), value.into())),
                None if matches!(bare, "help" | "h") => out.wants_help = true,
                None => open = Some(bare.into()),
            }
        }
        if let Some(name) = open {
            out.flags.push((name, String::new()));
        }
        Ok(out)
    }
}

/// `-5` and `-` are values, `-x`, `--x` and `--` are flags.
fn is_flag(word: &str) -> bool {
    match word.strip_prefix('-') {
        Some(rest) => {
            rest.starts_with('-') || rest.starts_with(|c: char| c.is_alphabetic() || c == '_')
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Words {
        Words::parse(text.split(' ').map(OsString::from).collect()).unwrap()
    }

    fn flags(text: &str) -> Vec<(String, String)> {
        parse(text).flags
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn flags_are_read_in_every_spelling() {
        assert_eq!(flags("x --a=b -c=d"), [pair("a", "b"), pair("c", "d")]);
        assert_eq!(flags("x --a b --n -5"), [pair("a", "b"), pair("n", "-5")]);
        assert_eq!(flags("x --on --a=b"), [pair("on", ""), pair("a", "b")]);
        assert_eq!(flags("x --data=aGk="), [pair("data", "aGk=")]);
        assert_eq!(flags("x --labels=k=v"), [pair("labels", "k=v")]);
        assert_eq!(flags("x --on"), [pair("on", "")]);
    }

    #[test]
    fn words_before_and_between_flags_name_the_endpoint() {
        let words = parse("my-svc greeter say-hello --name=A");
        assert_eq!(words.service, "my-svc");
        assert_eq!(words.endpoint, ["greeter", "say-hello"]);
        assert_eq!(parse("x --a=b call").endpoint, ["call"]);
        assert_eq!(parse("x --on -- call").endpoint, ["call"]);
        assert!(parse("x call --help").wants_help);
        assert!(Words::parse(vec!["x".into(), "--=b".into()]).is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(words in proptest::collection::vec(".*", 0..6)) {
            let _ = Words::parse(words.into_iter().map(OsString::from).collect());
        }
    }
}
