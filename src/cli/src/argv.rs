//! Rewrites the command line before it is parsed: Micro's CLI takes `-env` for `--env`, and so do
//! we, for every long flag there is. What follows the name of a service is left as it is, because
//! its flags come from the service's schema.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// The command line in the form that [`crate::command_line`] parses.
pub(crate) fn normalise(args: Vec<OsString>, root: &Command) -> Vec<OsString> {
    let mut out = Vec::with_capacity(args.len() + 1);
    let mut rest = args.into_iter();
    out.extend(rest.next());
    let mut at = root;
    let mut value_follows = false;
    while let Some(token) = rest.next() {
        let Some(text) = token.to_str() else {
            out.push(token);
            continue;
        };
        if std::mem::take(&mut value_follows) {
            out.push(token);
            continue;
        }
        if text == "--" {
            out.push(token);
            out.extend(rest);
            return out;
        }
        if text.starts_with('-') && text.len() > 1 {
            let (rewritten, takes_next) = flag(text, at, root);
            value_follows = takes_next;
            out.push(rewritten);
            continue;
        }
        if let Some(next) = at.find_subcommand(text) {
            at = next;
            out.push(token);
        } else if std::ptr::eq(at, root) {
            // `micro help helloworld` asks for the commands of a service.
            if text == "help" {
                let word = rest.next();
                let known = word
                    .as_deref()
                    .and_then(OsStr::to_str)
                    .is_none_or(|w| root.find_subcommand(w).is_some());
                if known {
                    out.push(token);
                    out.extend(word);
                } else {
                    out.extend(word);
                    out.push("--help".into());
                }
            } else {
                out.push(token);
            }
            out.extend(rest);
            return out;
        } else {
            out.push(token);
        }
    }
    out
}

/// A flag in its double-dash form, and whether the next token is its value.
fn flag(text: &str, at: &Command, root: &Command) -> (OsString, bool) {
    let bare = text.trim_start_matches('-');
    let (name, value) = bare
        .split_once('=')
        .map_or((bare, None), |(name, value)| (name, Some(value)));
    let long = find(at, root, |arg| {
        arg.get_long() == Some(name)
            || arg
                .get_all_aliases()
                .is_some_and(|aliases| aliases.contains(&name))
    });
    if let Some(arg) = long {
        let takes_next = value.is_none() && arg.get_action().takes_values();
        // One letter after one dash is the short flag, whatever is called the same.
        if text.starts_with("--") || name.chars().count() == 1 {
            return (text.into(), takes_next);
        }
        return (format!("--{bare}").into(), takes_next);
    }
    let mut letters = bare.chars();
    let short = letters.next().filter(|_| !text.starts_with("--"));
    let takes_next = letters.next().is_none()
        && short.is_some_and(|letter| {
            find(at, root, |arg| arg.get_short() == Some(letter))
                .is_some_and(|arg| arg.get_action().takes_values())
        });
    (text.into(), takes_next)
}

fn find<'a>(at: &'a Command, root: &'a Command, test: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
    at.get_arguments()
        .chain(root.get_arguments())
        .find(|arg| test(arg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line;

    fn rewrite(text: &str) -> String {
        let args = text.split(' ').map(OsString::from).collect();
        let out = normalise(args, &command_line::command());
        out.iter()
            .map(|a| a.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn long_flags_may_have_one_dash() {
        for (given, expected) in [
            ("micro -env dev status", "micro --env dev status"),
            ("micro run -name=x .", "micro run --name=x ."),
            (
                "micro run -name x -env_vars A=-b .",
                "micro run --name x --env_vars A=-b .",
            ),
            ("micro logs -f -n 5 x", "micro logs -f -n 5 x"),
            ("micro logs -n5 x", "micro logs -n5 x"),
            ("micro logs -fn 5 x", "micro logs -fn 5 x"),
            ("micro -e dev -c /x status", "micro -e dev -c /x status"),
            (
                "micro auth create rule -scope * x",
                "micro auth create rule --scope * x",
            ),
            ("micro run --name -env .", "micro run --name -env ."),
            ("micro call x Y.Z -- -env", "micro call x Y.Z -- -env"),
        ] {
            assert_eq!(rewrite(given), expected);
        }
    }

    #[test]
    fn flags_of_services_are_left_alone() {
        for same in [
            "micro -e dev helloworld -name=x -env y",
            "micro helloworld call --name=x -c z",
        ] {
            assert_eq!(rewrite(same), same);
        }
    }

    #[test]
    fn help_about_a_service_asks_the_service() {
        assert_eq!(rewrite("micro help helloworld"), "micro helloworld --help");
        assert_eq!(rewrite("micro help run"), "micro help run");
        assert_eq!(rewrite("micro help"), "micro help");
    }
}
