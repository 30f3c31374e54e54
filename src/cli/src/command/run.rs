//! `micro run` and `micro update`: from a source to a service that answers, told step by step.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::Path,
};

use micro_core::ServiceName;
use micro_proto::runtime::{
    CreateOptions, DeployEvent, DeployRequest, Deployed, Service, deploy_event::Event,
};
use serde_json::json;
use tonic::Request;

use crate::{
    command::{name_and_version, print_help, status},
    command_line::Run,
    context::{Context, OPERATOR},
    deploy::{
        pack,
        source::{self, DEFAULT_BASE, Local, Remote, Source},
        upload, words,
    },
    dynamic,
    error::{Error, Result},
    printer::Printer,
    session::Session,
};

/// Output lines that are remembered, so that a failure need not repeat them.
const REMEMBERED: usize = 100;

/// `micro run`
pub(crate) async fn run(context: &Context, args: &Run) -> Result<()> {
    let Some(text) = args.source.as_ref().or(args.source_flag.as_ref()) else {
        return print_help("run");
    };
    let request = Wanted::read(args)?;
    let source = match source::resolve(text, &here()?)? {
        Some(source) => source,
        None => well_known(context, text)?,
    };
    // Before anything long: is there a server, and may we?
    let session = Session::open(context).await?;
    deploy(context, &session, request, source, None).await
}

/// `micro update`
pub(crate) async fn update(context: &Context, args: &Run) -> Result<()> {
    let Some(text) = args.source.as_ref().or(args.source_flag.as_ref()) else {
        return print_help("update");
    };
    let request = Wanted::read(args)?;
    let local = source::resolve(text, &here()?)?;
    let session = Session::open(context).await?;
    if let Some(source) = local {
        return deploy(context, &session, request, source, Some(None)).await;
    }
    // The name of a service that runs: it knows where it came from.
    let (name, version) = name_and_version(text);
    let running = status::read(&session, Some(name.into()), version.map(Into::into)).await?;
    let found = running
        .into_iter()
        .find(|service| service.name == name)
        .ok_or_else(|| {
            Error::failed(format!(
                "no service {name} runs in namespace {}",
                session.namespace
            ))
            .with_hint("`micro status` lists those that do; `micro run` starts one")
        })?;
    let known = found.metadata.get("source").unwrap_or(&found.source);
    let source = source::resolve(known, Path::new("/"))
        .map_err(|e| {
            Error::failed(format!(
                "{name} came from {known}, which cannot be used: {e}"
            ))
            .with_hint(format!(
                "name the source: micro update --name {name} SOURCE"
            ))
        })?
        .ok_or_else(|| {
            Error::failed(format!("{name} came from {known}, which is not here")).with_hint(
                format!("name the source: micro update --name {name} SOURCE"),
            )
        })?;
    deploy(context, &session, request, source, Some(Some(found))).await
}

fn here() -> Result<std::path::PathBuf> {
    std::env::current_dir().map_err(Error::file("find", "the current folder"))
}

/// A short name: a folder of the repository that was set, or of Micro's own services.
fn well_known(context: &Context, text: &str) -> Result<Source> {
    let env = context.environment()?;
    let base = context
        .config
        .get(&format!("git.{}.baseurl", env.name))
        .or_else(|| context.config.get("git.baseurl"))
        .unwrap_or_else(|| DEFAULT_BASE.into());
    let full = format!("{}/{text}", base.trim_end_matches('/'));
    context
        .printer
        .note(&format!("{text} is no folder here, so {full} is run."));
    source::remote(&full)?
        .map(Source::Remote)
        .ok_or_else(|| Error::failed(format!("{full} does not name a repository")))
}

/// What the flags say.
struct Wanted {
    name: Option<String>,
    options: CreateOptions,
    metadata: BTreeMap<String, String>,
}

impl Wanted {
    fn read(args: &Run) -> Result<Self> {
        if let Some(name) = &args.name {
            ServiceName::parse(name).map_err(|e| Error::usage(e.to_string()))?;
        }
        let env = words::variables(&args.env_vars)?;
        Ok(Self {
            name: args.name.clone(),
            metadata: words::metadata(&args.metadata)?,
            options: CreateOptions {
                command: words::split(args.command.as_deref().unwrap_or_default())?,
                args: words::split(args.args.as_deref().unwrap_or_default())?,
                env: env.into_iter().map(|(k, v)| format!("{k}={v}")).collect(),
                instances: args.instances.unwrap_or(0).into(),
                force: args.force,
                ..CreateOptions::default()
            },
        })
    }
}

/// Uploads if need be, deploys, and tells how it went. `update` is there for an update, with the
/// service that is updated if it was named.
async fn deploy(
    context: &Context,
    session: &Session,
    wanted: Wanted,
    source: Source,
    update: Option<Option<Service>>,
) -> Result<()> {
    let printer = context.printer;
    let is_update = update.is_some();
    let known = update.flatten();
    let raw = match &source {
        Source::Local(local) => &local.name,
        Source::Remote(remote) => &remote.name,
    };
    let name = match (&wanted.name, &known) {
        (Some(name), _) => name.clone(),
        (None, Some(service)) => service.name.clone(),
        (None, None) => {
            let (name, changed) = source::name_from(raw)?;
            if changed {
                printer.note(&format!(
                    "note: {raw:?} cannot be the name of a service, so it is called {name}"
                ));
            }
            name
        }
    };
    let mut service = Service {
        name,
        version: "latest".into(),
        metadata: HashMap::from_iter(wanted.metadata),
        ..Service::default()
    };
    if let Some(known) = known {
        service.version = known.version;
    }
    let mut options = wanted.options;
    options.namespace = session.namespace.to_string();
    match source {
        Source::Local(local) => {
            service
                .metadata
                .insert("source".into(), local.shown.clone());
            options.entrypoint.clone_from(&local.entrypoint);
            service.source = send(session, printer, &local, &service).await?;
        }
        Source::Remote(remote) => {
            service
                .metadata
                .insert("source".into(), remote.source.clone());
            if let Some(credentials) = credentials(context, &remote) {
                options
                    .secrets
                    .insert("GIT_CREDENTIALS".into(), credentials);
            }
            service.version = remote.reference.unwrap_or(service.version);
            service.source = remote.source;
        }
    }
    let request = DeployRequest {
        service: Some(service),
        options: Some(options),
        update: is_update,
    };
    let deployed = follow(session, printer, request).await?;
    report(session, printer, &deployed).await
}

async fn send(
    session: &Session,
    printer: Printer,
    local: &Local,
    service: &Service,
) -> Result<String> {
    let plan = pack::plan(&local.root, local.only.as_deref())?;
    for path in &plan.skipped {
        printer.note(&format!(
            "note: {} is left out: it is neither a file, a folder nor a link",
            path.display()
        ));
    }
    printer.strong(&format!(
        "Uploading {} ({} file{}, {})",
        local
            .root
            .join(local.only.as_deref().unwrap_or(Path::new("")))
            .display(),
        plan.files,
        if plan.files == 1 { "" } else { "s" },
        indicatif::HumanBytes(plan.bytes),
    ));
    let service = Service {
        name: service.name.clone(),
        version: service.version.clone(),
        ..Service::default()
    };
    upload::upload(session, printer, plan, service).await
}

/// The user's credentials for a repository, as Micro looks them up.
fn credentials(context: &Context, remote: &Remote) -> Option<String> {
    if let Some(login) = &remote.login {
        return Some(login.clone());
    }
    let config = &context.config;
    let url = config.get("git.credentials.url");
    if url.is_some_and(|url| remote.source.contains(&url))
        && let Some(token) = config.get("git.credentials.token")
    {
        return Some(token);
    }
    let bare = remote.source.split("://").last()?;
    let host = bare.split('/').next()?;
    ["github", "gitlab", "bitbucket"]
        .iter()
        .filter(|word| host.contains(*word))
        .find_map(|word| config.get(&format!("git.credentials.{word}")))
}

/// Tells each step until the service serves or has failed.
async fn follow(session: &Session, printer: Printer, request: DeployRequest) -> Result<Deployed> {
    let mut lines: VecDeque<String> = VecDeque::new();
    let mut events = session
        .runtime()
        .deploy(Request::new(request))
        .await
        .map_err(|s| session.failure(s))?
        .into_inner();
    loop {
        let next = events.message().await;
        match next.map_err(|s| unrepeated(session.failure(s), &lines))? {
            Some(DeployEvent {
                event: Some(Event::Phase(phase)),
            }) => printer.strong(&crate::error::capitalised(&phase)),
            Some(DeployEvent {
                event: Some(Event::Line(line)),
            }) => {
                printer.dim(&format!("  {line}"));
                if lines.len() == REMEMBERED {
                    lines.pop_front();
                }
                lines.push_back(line.trim().to_owned());
            }
            Some(DeployEvent {
                event: Some(Event::Deployed(deployed)),
            }) => return Ok(deployed),
            Some(DeployEvent { event: None }) => {}
            None => {
                return Err(
                    Error::failed("the server stopped telling about the deployment")
                        .with_hint("`micro status` shows how it went"),
                );
            }
        }
    }
}

/// The server's reason comes with the last output lines; those that were shown already are dropped.
fn unrepeated(error: Error, shown: &VecDeque<String>) -> Error {
    let Error::Refused(mut wire) = error else {
        return error;
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut dropped = false;
    for line in wire.detail.lines() {
        let text = line.trim();
        if line.starts_with("  ") && shown.iter().any(|s| s == text) {
            dropped = true;
        } else {
            kept.push(line);
        }
    }
    if dropped {
        let text = kept.join("\n");
        wire.detail = text.replace("; its last output:", "");
    }
    Error::Refused(wire)
}

async fn report(session: &Session, printer: Printer, deployed: &Deployed) -> Result<()> {
    if !deployed.missing_isolation.is_empty() {
        printer.note(&format!(
            "warning: the server cannot isolate it completely: {}",
            deployed.missing_isolation.join("; ")
        ));
    }
    if printer.is_json() {
        return printer.json(&json!({
            "name": deployed.name,
            "version": deployed.version,
            "namespace": session.namespace,
            "release": deployed.release,
            "protocol": deployed.protocol,
            "url": deployed.url,
            "missing_isolation": deployed.missing_isolation,
        }));
    }
    // The service may have nothing to show; that it runs is what counts.
    let found = if deployed.protocol == "http" {
        None
    } else {
        dynamic::find(session, &deployed.name).await.ok().flatten()
    };
    let example = found.as_ref().and_then(dynamic::example);
    printer.strong(&format!("{} is running", deployed.name));
    for line in ways(deployed, session.namespace.as_str(), example) {
        printer.note(&format!("  {line}"));
    }
    Ok(())
}

/// How to call what was deployed.
fn ways(deployed: &Deployed, namespace: &str, example: Option<(String, String)>) -> Vec<String> {
    let header = if namespace == OPERATOR {
        String::new()
    } else {
        format!("-H 'Micro-Namespace: {namespace}' ")
    };
    let mut lines = Vec::new();
    let path = example.as_ref().map_or("", |(_, path)| path.as_str());
    if let Some((words, _)) = &example {
        lines.push(format!("micro {words}"));
    }
    if !deployed.url.is_empty() {
        let slash = if deployed.protocol == "http" && !deployed.url.ends_with('/') {
            "/"
        } else {
            ""
        };
        lines.push(format!("curl {header}'{}{slash}{path}'", deployed.url));
    }
    lines.push(format!("micro logs {}", deployed.name));
    lines
}

#[cfg(test)]
mod tests {
    use micro_core::{Kind, WireError};

    use super::*;

    fn deployed(protocol: &str) -> Deployed {
        Deployed {
            name: "helloworld".into(),
            protocol: protocol.into(),
            url: "http://127.0.0.1:8080/helloworld".into(),
            ..Deployed::default()
        }
    }

    #[test]
    fn the_end_says_how_to_call_it() {
        let example = Some((
            "helloworld call --name=Alice".into(),
            "/call?name=Alice".into(),
        ));
        assert_eq!(
            ways(&deployed("grpc"), "micro", example),
            [
                "micro helloworld call --name=Alice",
                "curl 'http://127.0.0.1:8080/helloworld/call?name=Alice'",
                "micro logs helloworld",
            ]
        );
        assert_eq!(
            ways(&deployed("http"), "foo", None),
            [
                "curl -H 'Micro-Namespace: foo' 'http://127.0.0.1:8080/helloworld/'",
                "micro logs helloworld",
            ]
        );
    }

    #[test]
    fn a_failure_does_not_repeat_what_was_shown() {
        let detail =
            "cannot build x: exit code 1; its last output:\n  error: a\n  new\nhint: fix it";
        let error = || Error::Refused(WireError::new("runtime", Kind::Invalid, detail));
        let shown = VecDeque::from(["error: a".to_owned()]);
        assert_eq!(
            unrepeated(error(), &shown).to_string(),
            "cannot build x: exit code 1\n  new\nhint: fix it"
        );
        assert_eq!(unrepeated(error(), &VecDeque::new()).to_string(), detail);
    }
}
