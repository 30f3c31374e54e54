//! Command lines in flags: `--command "node server.js"`, `--env_vars A=1,B=2`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Splits at spaces outside quotes; a backslash takes the next character as it is.
///
/// # Errors
/// When a quote is not closed.
pub(crate) fn split(text: &str) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().extend(chars.next());
            }
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => out.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::usage(format!("a quote is not closed in {text:?}")));
    }
    out.extend(word);
    Ok(out)
}

/// `A=1,B=2`: a comma starts the next variable only where `NAME=` follows, so values may hold commas.
///
/// # Errors
/// For a word without `=` or without a name.
pub(crate) fn variables(words: &[String]) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for word in words {
        let mut last: Option<String> = None;
        for part in word.split(',') {
            match (part.split_once('='), &last) {
                (Some((name, value)), _) if is_name(name.trim()) => {
                    let name = name.trim().to_owned();
                    out.insert(name.clone(), value.to_owned());
                    last = Some(name);
                }
                (_, Some(name)) => {
                    let value: &mut String = out.entry(name.clone()).or_default();
                    value.push(',');
                    value.push_str(part);
                }
                _ => {
                    return Err(Error::usage(format!(
                        "{part:?} in --env_vars is not of the form NAME=VALUE"
                    )));
                }
            }
        }
    }
    Ok(out)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `key=value` notes on a service.
///
/// # Errors
/// In Micro's words, for `source` and for what is no pair.
pub(crate) fn metadata(words: &[String]) -> Result<BTreeMap<String, String>> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.contains('=') => {
                if key == "source" {
                    return Err(Error::usage(
                        "invalid metadata string, 'source' is a reserved key",
                    ));
                }
                Ok((key.to_owned(), value.to_owned()))
            }
            _ => Err(Error::usage(format!(
                "invalid metadata string, must be of form foo=bar {word}"
            ))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn commands_are_split_as_a_shell_splits_them() {
        for (text, words) in [
            ("node server.js", &["node", "server.js"][..]),
            ("  a  'b c' \"d e\" f\\ g ", &["a", "b c", "d e", "f g"]),
            ("x ''", &["x", ""]),
            ("a\"b\"c", &["abc"]),
            ("", &[]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert!(split("'a").is_err());
    }

    #[test]
    fn variables_may_hold_commas() {
        let map = variables(&owned(&["A=1,B=x,y,C=", "D=k=v"])).unwrap();
        let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["A=1", "B=x,y", "C=", "D=k=v"]);
        assert!(variables(&owned(&["A"])).is_err());
        assert!(variables(&owned(&["=x"])).is_err());
    }

    #[test]
    fn notes_are_refused_in_micros_words() {
        assert_eq!(metadata(&owned(&["a=b"])).unwrap()["a"], "b");
        for (word, text) in [
            (
                "source=x",
                "invalid metadata string, 'source' is a reserved key",
            ),
            (
                "a=b=c",
                "invalid metadata string, must be of form foo=bar a=b=c",
            ),
            ("a", "invalid metadata string, must be of form foo=bar a"),
        ] {
            assert_eq!(metadata(&owned(&[word])).unwrap_err().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused(text in ".*") {
            let _ = split(&text);
            let _ = variables(&[text]);
        }
    }
}
