//! `micro config`: settings of services. Output and messages are Micro's where Micro has the
//! command.

use jiff::Timestamp;
use micro_proto::config::{
    DeleteRequest, Entry, GetRequest, HistoryRequest, Options, RevertRequest, RotateRequest,
    SetRequest, Value, WatchRequest,
};
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{
    command::print_help,
    command_line::{ConfigCommand, ConfigGet, ConfigSet},
    context::Context,
    error::{Error, Result},
    input, json,
    line::{self, Object},
    patience::{self, Patience},
    printer::Printer,
    session::Session,
    table::{self, Padding},
};

/// Does what `micro config ...` says.
pub(crate) async fn run(context: &Context, command: ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Get(args) => get(context, args).await,
        ConfigCommand::Set(args) => set(context, args).await,
        ConfigCommand::Del { path } => delete(context, path).await,
        ConfigCommand::Watch { path, secret } => watch(context, &path, secret).await,
        ConfigCommand::History { path, limit } => history(context, path, limit).await,
        ConfigCommand::Revert { version } => revert(context, version).await,
        ConfigCommand::Rotate => rotate(context).await,
    }
}

/// Nothing is there, in Micro's words.
fn nothing(path: &str) -> Error {
    Error::failed("Not found").with_hint(format!(
        "there is no value at {path:?}; `micro config get --all` shows those there are"
    ))
}

async fn get(context: &Context, args: ConfigGet) -> Result<()> {
    let path = match (args.path, args.all) {
        (_, true) => String::new(),
        (Some(path), false) => path,
        (None, false) => return print_help("config get"),
    };
    let session = Session::open(context).await?;
    let request = session.request(GetRequest {
        namespace: session.namespace.to_string(),
        path: path.clone(),
        options: secrets(args.secret),
    });
    let answer = session.config().get(request).await;
    let value = answer.map_err(|s| match session.failure(s) {
        error if error.is_not_found() => nothing(&path),
        error => error,
    })?;
    let data = value.into_inner().value.unwrap_or_default().data;
    if matches!(data.trim(), "" | "null") {
        return Err(nothing(&path));
    }
    if context.printer.is_json() {
        return context.printer.line(&json::indent(data.as_bytes()));
    }
    context.printer.line(bare(&data))
}

fn secrets(secret: bool) -> Option<Options> {
    Some(Options { secret })
}

/// A text without its quotes, other values as they are. Micro leaves the escapes in it alone.
fn bare(data: &str) -> &str {
    data.strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(data)
}

async fn set(context: &Context, args: ConfigSet) -> Result<()> {
    let Some(path) = args.path else {
        return print_help("config set");
    };
    let value = args.value.filter(|value| !value.is_empty());
    let (Some(value), false) = (value, path.is_empty()) else {
        return Err(Error::usage("Missing path or value").with_hint(
            "write it like: micro config set helloworld.greeting Hello, with '\"\"' for an empty text and - for stdin",
        ));
    };
    let data = json_of(&input::text(&value)?, args.json, args.text)?;
    let session = Session::open(context).await?;
    let request = session.request(SetRequest {
        namespace: session.namespace.to_string(),
        path,
        value: Some(Value {
            data,
            format: "json".into(),
        }),
        options: secrets(args.secret),
    });
    let answer = session.config().set(request).await;
    let version = answer.map_err(|s| session.failure(s))?.into_inner().version;
    changed(context.printer, version)
}

/// JSON as it is, everything else as a text. Like Micro we read the escapes of JSON in a text that
/// has them.
fn json_of(text: &str, must_be_json: bool, is_text: bool) -> Result<String> {
    if is_text {
        return quoted(text);
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.trim().into()),
        Err(e) if must_be_json => Err(Error::usage(format!("the value is not JSON: {e}"))
            .with_hint("put it in single quotes, like '{\"a\": 1}'")),
        Err(_) => {
            let escaped = format!("\"{text}\"");
            if json::is_valid(escaped.as_bytes()) {
                return Ok(escaped);
            }
            quoted(text)
        }
    }
}

fn quoted(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|e| Error::Output(e.into()))
}

/// Micro says nothing when something was changed.
fn changed(printer: Printer, version: u64) -> Result<()> {
    if printer.is_json() {
        return printer.json(&json!({ "version": version }));
    }
    Ok(())
}

async fn delete(context: &Context, path: Option<String>) -> Result<()> {
    let Some(path) = path else {
        return print_help("config del");
    };
    if path.is_empty() {
        return Err(Error::usage("key cannot be blank")
            .with_hint("name what to remove: micro config del helloworld.greeting"));
    }
    let session = Session::open(context).await?;
    let request = session.request(DeleteRequest {
        namespace: session.namespace.to_string(),
        path,
    });
    let answer = session.config().delete(request).await;
    let version = answer.map_err(|s| session.failure(s))?.into_inner().version;
    changed(context.printer, version)
}

async fn watch(context: &Context, path: &str, secret: bool) -> Result<()> {
    let mut seen = None;
    let mut patience = Patience::new(context.printer);
    let follow = async {
        loop {
            let ended = connection(context, path, secret, &mut seen, &mut patience).await;
            let error = ended.err().unwrap_or_else(patience::ended);
            patience.wait(error).await?;
        }
    };
    tokio::select! {
        biased;
        () = patience::interrupted() => Ok(()),
        ended = follow => ended,
    }
}

/// Prints what one connection brings; `seen` is the version that was printed last.
async fn connection(
    context: &Context,
    path: &str,
    secret: bool,
    seen: &mut Option<u64>,
    patience: &mut Patience,
) -> Result<()> {
    let session = Session::open(context).await?;
    let failed = |status| session.failure(status);
    let ask = WatchRequest {
        namespace: session.namespace.to_string(),
        path: path.into(),
        options: secrets(secret),
    };
    let asks = tokio_stream::once(ask).chain(tokio_stream::pending());
    let answer = session.config().watch(Request::new(asks)).await;
    let mut answers = answer.map_err(failed)?.into_inner();
    patience.connected();
    while let Some(answer) = answers.message().await.map_err(failed)? {
        // A new connection begins with the value as it is.
        if seen.replace(answer.version) == Some(answer.version) {
            continue;
        }
        let data = answer.value.unwrap_or_default().data;
        let data = if data.is_empty() { "null" } else { &data };
        if context.printer.is_json() {
            let object = Object::new()
                .with("version", answer.version)
                .with_json("value", data);
            context.printer.line(&object.finish())?;
        } else {
            context.printer.line(bare(data))?;
        }
    }
    Ok(())
}

async fn history(context: &Context, path: String, limit: u64) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(HistoryRequest {
        namespace: session.namespace.to_string(),
        path,
        limit,
    });
    let answer = session.config().history(request).await;
    let entries = answer.map_err(|s| session.failure(s))?.into_inner().entries;
    if context.printer.is_json() {
        let rows: Vec<_> = entries.iter().map(shown).collect();
        return context.printer.json(&rows);
    }
    let table = table::align(&rows(&entries), Padding::Spaces);
    context.printer.write(table.as_bytes())
}

fn time(entry: &Entry) -> Option<Timestamp> {
    Timestamp::from_second(entry.at).ok()
}

fn shown(entry: &Entry) -> serde_json::Value {
    let value = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    json!({
        "version": entry.version,
        "at": time(entry),
        "by": entry.by,
        "action": entry.action,
        "path": entry.path,
        "before": value(&entry.before),
        "after": value(&entry.after),
    })
}

fn rows(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let mut text = String::from("VERSION\tAT\tBY\tACTION\tPATH\tBEFORE\tAFTER\n");
    for entry in entries {
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            entry.version,
            time(entry).map_or_else(|| "n/a".into(), |at| at.to_string()),
            entry.by,
            entry.action,
            line::short(&entry.path),
            line::short(&entry.before),
            line::short(&entry.after),
        ));
    }
    text
}

async fn revert(context: &Context, to: u64) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(RevertRequest {
        namespace: session.namespace.to_string(),
        version: to,
    });
    let answer = session.config().revert(request).await;
    let version = answer.map_err(|s| session.failure(s))?.into_inner().version;
    if !context.printer.is_json() {
        context.printer.note(&format!(
            "everything is as it was after version {to}; this is version {version}"
        ));
    }
    changed(context.printer, version)
}

async fn rotate(context: &Context) -> Result<()> {
    let session = Session::open(context).await?;
    // It encrypts everything there is, so it may take its time.
    let answer = session
        .config()
        .rotate(Request::new(RotateRequest {}))
        .await;
    let secrets = answer.map_err(|s| session.failure(s))?.into_inner().secrets;
    if context.printer.is_json() {
        return context.printer.json(&json!({ "secrets": secrets }));
    }
    let what = match secrets {
        1 => "1 secret is".into(),
        count => format!("{count} secrets are"),
    };
    context.printer.note(&format!(
        "{what} encrypted with a new key now; keep a copy of the key"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_or_texts() {
        for (text, json) in [
            ("42", "42"),
            (" {\"a\": 1} ", "{\"a\": 1}"),
            ("true", "true"),
            ("hello world", "\"hello world\""),
            ("\"quoted\"", "\"quoted\""),
            ("say \"hi\"", "\"say \\\"hi\\\"\""),
            ("a\\nb", "\"a\\nb\""),
            ("C:\\dir", "\"C:\\\\dir\""),
            ("two\nlines", "\"two\\nlines\""),
        ] {
            assert_eq!(json_of(text, false, false).unwrap(), json, "{text}");
        }
        assert_eq!(json_of("42", false, true).unwrap(), "\"42\"");
        assert!(json_of("{a: 1}", true, false).is_err());
    }

    #[test]
    fn texts_are_shown_without_quotes_and_with_their_escapes() {
        assert_eq!(bare("\"a\\nb\""), "a\\nb");
        assert_eq!(bare("\"\""), "");
        assert_eq!(bare("\""), "\"");
        assert_eq!(bare("{\"a\":1}"), "{\"a\":1}");
    }

    #[test]
    fn history_tells_who_did_what() {
        let entry = Entry {
            version: 3,
            action: "set".into(),
            path: "a.b".into(),
            by: "admin".into(),
            at: 1_700_000_000,
            before: String::new(),
            after: "\"[secret]\"".into(),
        };
        assert_eq!(
            table::align(&rows(std::slice::from_ref(&entry)), Padding::Spaces),
            concat!(
                "VERSION AT                   BY    ACTION PATH BEFORE AFTER\n",
                "3       2023-11-14T22:13:20Z admin set    a.b  n/a    \"[secret]\"\n",
            )
        );
        assert_eq!(shown(&entry)["before"], serde_json::Value::Null);
        assert_eq!(rows(&[]), "");
    }
}
