//! `micro logs`.

use micro_proto::runtime::{LogRecord, LogsOptions, LogsRequest};
use serde::Serialize;
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{
    command::{kill, print_help},
    command_line::Logs,
    context::Context,
    error::{Error, Result},
    session::{self, Session},
};

/// Lines that are shown when nothing else is asked for.
const LINES: i64 = 15;

/// Prints what a service printed.
pub(crate) async fn run(context: &Context, args: &Logs) -> Result<()> {
    let Some(word) = &args.name else {
        return print_help("logs");
    };
    let (name, at) = kill::target(word)?;
    let since = args.since.map_or(0, |span| {
        let seconds = i64::try_from(span.0.as_secs()).unwrap_or(i64::MAX);
        session::now().as_second().saturating_sub(seconds)
    });
    let session = Session::open(context).await?;
    let request = LogsRequest {
        service: name,
        version: args.version.clone().or(at).unwrap_or_default(),
        stream: args.follow,
        count: if args.lines > 0 { args.lines } else { LINES },
        since,
        options: Some(LogsOptions {
            namespace: session.namespace.to_string(),
        }),
    };
    // The stream stays open on our side, as Micro's does: the server ends it.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let failed = |status| prefixed(session.failure(status));
    let mut records = session
        .runtime()
        .logs(Request::new(requests))
        .await
        .map_err(failed)?
        .into_inner();
    while let Some(record) = records.message().await.map_err(failed)? {
        if context.printer.is_json() {
            context.printer.line(&as_json(&record))?;
        } else {
            context.printer.line(&record.message)?;
        }
    }
    Ok(())
}

/// Micro says what it was doing when there are no logs.
fn prefixed(error: Error) -> Error {
    let text = error.to_string();
    if text.starts_with("Logs not found") {
        return Error::failed(format!("Error reading logs: {text}"))
            .with_hint("`micro status` lists the services that were run")
            .with_exit(128);
    }
    error
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    message: &'a str,
    metadata: Option<&'a std::collections::HashMap<String, String>>,
}

fn as_json(record: &LogRecord) -> String {
    let shown = Shown {
        message: &record.message,
        metadata: Some(&record.metadata).filter(|m| !m.is_empty()),
    };
    serde_json::to_string(&shown).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_micros_json() {
        let record = LogRecord {
            message: "a \"b\"".into(),
            ..LogRecord::default()
        };
        assert_eq!(as_json(&record), r#"{"Message":"a \"b\"","Metadata":null}"#);
    }
}
