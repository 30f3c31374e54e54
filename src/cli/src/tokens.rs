//! `~/.micro/tokens`: one line per login, shared with Micro's own CLI.
//!
//! ```text
//! micro://<proxy address>/<namespace>/<account>:<base64 of a JSON object>
//! ```
//! The address holds a colon too, so a line is split at its last one. Lines that cannot be read are
//! kept as they are.

use std::{fmt::Write as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{error::Result, private_file};

/// What a login gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Sent with each call.
    pub(crate) access_token: String,
    /// Buys the next access token.
    #[serde(default)]
    pub(crate) refresh_token: String,
    /// When it was made.
    #[serde(default, deserialize_with = "instant")]
    pub(crate) created: Timestamp,
    /// When the access token ends.
    #[serde(default, deserialize_with = "instant")]
    pub(crate) expiry: Timestamp,
}

/// Micro writes RFC 3339; numbers are taken as Unix seconds.
fn instant<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Timestamp, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Seconds(i64),
        Text(String),
    }
    match Either::deserialize(from)? {
        Either::Seconds(n) => Timestamp::from_second(n).map_err(serde::de::Error::custom),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    /// Address of the proxy.
    pub(crate) address: &'a str,
    /// The namespace that issued it.
    pub(crate) namespace: &'a str,
    /// The account.
    pub(crate) account: &'a str,
}

impl Owner<'_> {
    fn key(&self) -> String {
        format!(
            "micro://{}/{}/{}",
            self.address, self.namespace, self.account
        )
    }
}

/// The token of `owner`, if it is logged in.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn get(path: &Path, owner: &Owner<'_>) -> Result<Option<Token>> {
    let Some(text) = private_file::read(path)? else {
        return Ok(None);
    };
    let key = owner.key();
    Ok(text
        .lines()
        .filter_map(split)
        .find(|(k, _)| *k == key)
        .and_then(|(_, value)| decode(value)))
}

/// Stores the token of `owner` in the place of an older one.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn put(path: &Path, owner: &Owner<'_>, token: &Token) -> Result<()> {
    let json = serde_json::to_vec(token).map_err(std::io::Error::from)?;
    rewrite(
        path,
        owner,
        Some(format!("{}:{}", owner.key(), STANDARD.encode(json))),
    )
}

/// Forgets the token of `owner`.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn remove(path: &Path, owner: &Owner<'_>) -> Result<()> {
    if get(path, owner)?.is_none() {
        return Ok(());
    }
    rewrite(path, owner, None)
}

fn rewrite(path: &Path, owner: &Owner<'_>, line: Option<String>) -> Result<()> {
    let key = owner.key();
    let old = private_file::read(path)?.unwrap_or_default();
    let mut text = String::with_capacity(old.len() + 1024);
    for kept in old
        .lines()
        .filter(|l| !l.trim().is_empty() && split(l).is_none_or(|(k, _)| k != key))
    {
        let _ = writeln!(text, "{kept}");
    }
    if let Some(line) = line {
        let _ = writeln!(text, "{line}");
    }
    private_file::replace(path, &text)
}

fn split(line: &str) -> Option<(&str, &str)> {
    line.trim().rsplit_once(':')
}

fn decode(value: &str) -> Option<Token> {
    let json = STANDARD.decode(value).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // As Micro's own CLI writes it: nanoseconds and an offset in the times.
    const THEIRS: &str = r#"{"access_token":"a.b.c","refresh_token":"r","created":"2024-05-06T07:08:09.123456789+02:00","expiry":"2024-05-07T07:08:09+02:00"}"#;

    fn owner() -> Owner<'static> {
        Owner {
            address: "127.0.0.1:8081",
            namespace: "micro",
            account: "admin",
        }
    }

    #[test]
    fn micros_own_lines_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let line = format!(
            "micro://127.0.0.1:8081/micro/admin:{}\n",
            STANDARD.encode(THEIRS)
        );
        std::fs::write(&path, line).unwrap();
        let token = get(&path, &owner()).unwrap().unwrap();
        assert_eq!(token.access_token, "a.b.c");
        assert_eq!(token.expiry.as_second(), 1_715_058_489);
    }

    #[test]
    fn a_token_survives_the_round_trip_and_others_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "micro://host/ns/other:e30=\nnot a token line\n").unwrap();
        let token = Token {
            access_token: "x.y.z".into(),
            refresh_token: "again".into(),
            created: Timestamp::from_second(1_700_000_000).unwrap(),
            expiry: Timestamp::from_second(1_700_086_400).unwrap(),
        };
        put(&path, &owner(), &token).unwrap();
        put(&path, &owner(), &token).unwrap();
        assert_eq!(get(&path, &owner()).unwrap(), Some(token));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.starts_with("micro://host/ns/other:e30=\nnot a token line\n"));
        remove(&path, &owner()).unwrap();
        assert_eq!(get(&path, &owner()).unwrap(), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn what_we_write_has_micros_shape() {
        let token: Token = serde_json::from_str(THEIRS).unwrap();
        let value = serde_json::to_value(&token).unwrap();
        assert_eq!(value["expiry"], "2024-05-07T05:08:09Z");
        assert_eq!(
            value.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["access_token", "created", "expiry", "refresh_token"]
        );
    }

    #[test]
    fn damaged_content_means_logged_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "micro://127.0.0.1:8081/micro/admin:%%%\n\n:::\n").unwrap();
        assert_eq!(get(&path, &owner()).unwrap(), None);
    }
}
