//! `micro kill`.

use micro_proto::runtime::{DeleteOptions, DeleteRequest, Resource, Service};
use serde_json::json;

use crate::{
    command::{name_and_version, print_help, status},
    command_line::Kill,
    context::Context,
    deploy::source::{self, Source},
    error::{Error, Result},
    session::Session,
};

/// Stops and removes services.
pub(crate) async fn run(context: &Context, args: Kill) -> Result<()> {
    let names: Vec<String> = args.name.into_iter().chain(args.names).collect();
    if names.is_empty() {
        return print_help("kill");
    }
    let session = Session::open(context).await?;
    let mut stopped = Vec::new();
    for name in &names {
        let (name, version) = target(name)?;
        let version = match version {
            Some(version) => version,
            None => version_of(&session, &name).await?,
        };
        let request = session.request(DeleteRequest {
            resource: Some(Resource {
                service: Some(Service {
                    name: name.clone(),
                    version,
                    ..Service::default()
                }),
                ..Resource::default()
            }),
            options: Some(DeleteOptions {
                namespace: session.namespace.to_string(),
            }),
        });
        let answer = session.runtime().delete(request).await;
        answer.map_err(|s| match session.failure(s) {
            // Micro's text alone does not say what was not found.
            Error::Refused(wire) if wire.detail == "not found" => Error::Failed {
                message: wire.detail,
                hint: Some(format!(
                    "no service {name} runs in namespace {}; `micro status` lists those that do",
                    session.namespace
                )),
                exit: 127,
            },
            other => other,
        })?;
        stopped.push(name);
    }
    if context.printer.is_json() {
        return context.printer.json(&json!({ "stopped": stopped }));
    }
    Ok(())
}

/// The version that is meant when none is named: `latest`, or the only one there is.
async fn version_of(session: &Session, name: &str) -> Result<String> {
    let running = status::read(session, Some(name.into()), None).await?;
    let mut versions: Vec<String> = running
        .into_iter()
        .filter(|service| service.name == name)
        .map(|service| service.version)
        .collect();
    Ok(match versions.pop() {
        Some(only) if versions.is_empty() => only,
        _ => "latest".into(),
    })
}

/// The service that a word of the command line means: a name, or a folder that is called like it.
pub(crate) fn target(word: &str) -> Result<(String, Option<String>)> {
    let (word, version) = name_and_version(word);
    if !word.contains('/') && !matches!(word, "." | "..") {
        return Ok((word.to_owned(), version.map(str::to_owned)));
    }
    let here = std::env::current_dir().map_err(Error::file("find", "the current folder"))?;
    let raw = match source::resolve(word, &here)? {
        Some(Source::Local(local)) => local.name,
        Some(Source::Remote(remote)) => remote.name,
        None => word.to_owned(),
    };
    let (name, _) = source::name_from(&raw)?;
    Ok((name, version.map(str::to_owned)))
}
