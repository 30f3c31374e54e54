//! `micro status`.

use jiff::Timestamp;
use micro_proto::runtime::{ReadOptions, ReadRequest, Service};
use serde_json::json;

use crate::{
    command::kill,
    command_line::Status,
    context::Context,
    error::Result,
    session::{self, Session},
    table::{self, Padding},
};

/// Shows the services that were run.
pub(crate) async fn run(context: &Context, args: &Status) -> Result<()> {
    let (name, at) = match &args.name {
        Some(word) => {
            let (name, at) = kill::target(word)?;
            (Some(name), at)
        }
        None => (None, None),
    };
    let version = args.version.clone().or(at);
    let session = Session::open(context).await?;
    let services = read(&session, name, version).await?;
    let now = session::now();
    if context.printer.is_json() {
        let rows: Vec<_> = services.iter().map(shown).collect();
        return context.printer.json(&rows);
    }
    context.printer.write(table(&services, now).as_bytes())
}

/// What runs, in the order of names.
pub(crate) async fn read(
    session: &Session,
    name: Option<String>,
    version: Option<String>,
) -> Result<Vec<Service>> {
    let request = session.request(ReadRequest {
        options: Some(ReadOptions {
            namespace: session.namespace.to_string(),
            service: name.unwrap_or_default(),
            version: version.unwrap_or_default(),
            ..ReadOptions::default()
        }),
    });
    let answer = session.runtime().read(request).await;
    let mut services = answer
        .map_err(|s| session.failure(s))?
        .into_inner()
        .services;
    services.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(services)
}

/// The word for a status.
pub(crate) fn word(status: i32) -> &'static str {
    match status {
        1 => "pending",
        2 => "building",
        3 => "starting",
        4 => "running",
        5 => "stopping",
        6 => "stopped",
        7 => "error",
        _ => "unknown",
    }
}

fn shown(service: &Service) -> serde_json::Value {
    json!({
        "name": service.name,
        "version": service.version,
        "source": source(service),
        "status": word(service.status),
        "build": service.metadata.get("build"),
        "started": service.metadata.get("started"),
        "metadata": service.metadata,
    })
}

fn source(service: &Service) -> &str {
    match service.metadata.get("source") {
        Some(source) if !source.is_empty() => source,
        _ => &service.source,
    }
}

fn table(services: &[Service], now: Timestamp) -> String {
    if services.is_empty() {
        return String::new();
    }
    let mut text = String::from("NAME\tVERSION\tSOURCE\tSTATUS\tBUILD\tUPDATED\tMETADATA\n");
    for service in services {
        let get = |key: &str| service.metadata.get(key).map_or("", String::as_str);
        let or_none = |text: &str| {
            if text.is_empty() {
                "n/a".into()
            } else {
                one_line(text)
            }
        };
        let build: String = get("build").chars().take(7).collect();
        let mut metadata = format!(
            "owner={}, group={}",
            or_none(get("owner")),
            or_none(get("group"))
        );
        if service.status == 7 {
            metadata.push_str(&format!(", error={}", one_line(get("error"))));
        }
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{metadata}\n",
            service.name,
            or_none(&service.version),
            or_none(source(service)),
            word(service.status),
            or_none(&build),
            ago(get("started"), now),
        ));
    }
    table::align(&text, Padding::Tabs)
}

/// A cell must not break the table.
fn one_line(text: &str) -> String {
    text.split(['\n', '\t', '\r'])
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// `4s ago`, `1m4s ago`, `2h1m4s ago`, `1d2h1m4s ago`.
fn ago(started: &str, now: Timestamp) -> String {
    let Ok(started) = started.parse::<Timestamp>() else {
        return "unknown".into();
    };
    let seconds = (now.as_second() - started.as_second()).max(0);
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    for (amount, unit) in [(days, 'd'), (hours, 'h'), (minutes, 'm')] {
        if amount > 0 || !text.is_empty() {
            text.push_str(&format!("{amount}{unit}"));
        }
    }
    format!("{text}{rest}s ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn ages_are_told_as_micro_tells_them() {
        let now = at("2026-01-02T03:04:05Z");
        for (started, text) in [
            ("2026-01-02T03:04:01Z", "4s ago"),
            ("2026-01-02T03:03:01Z", "1m4s ago"),
            ("2026-01-02T01:03:01Z", "2h1m4s ago"),
            ("2026-01-01T01:03:01Z", "1d2h1m4s ago"),
            ("2026-01-01T03:04:05Z", "1d0h0m0s ago"),
            ("2026-01-02T04:00:00+01:00", "4m5s ago"),
            ("2027-01-01T00:00:00Z", "0s ago"),
            ("", "unknown"),
        ] {
            assert_eq!(ago(started, now), text, "{started}");
        }
    }

    #[test]
    fn the_table_is_micros() {
        let service = |name: &str, status, metadata: &[(&str, &str)]| Service {
            name: name.into(),
            version: "latest".into(),
            status,
            metadata: metadata
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..Service::default()
        };
        let services = [
            service(
                "broken",
                7,
                &[("owner", "bob"), ("group", "foo"), ("error", "it\nexited")],
            ),
            service(
                "helloworld",
                4,
                &[
                    ("source", "github.com/micro/services/helloworld"),
                    ("started", "2026-01-02T03:04:01Z"),
                    ("build", "0123456789"),
                    ("owner", "admin"),
                    ("group", "micro"),
                ],
            ),
        ];
        assert_eq!(
            table(&services, at("2026-01-02T03:04:05Z")),
            concat!(
                "NAME\t\tVERSION\tSOURCE\t\t\t\t\tSTATUS\tBUILD\tUPDATED\tMETADATA\n",
                "broken\t\tlatest\tn/a\t\t\t\t\terror\tn/a\tunknown\towner=bob, group=foo, error=it; exited\n",
                "helloworld\tlatest\tgithub.com/micro/services/helloworld\trunning\t0123456\t4s ago\towner=admin, group=micro\n",
            )
        );
        assert_eq!(table(&[], at("2026-01-02T03:04:05Z")), "");
    }
}
