//! Services as commands: `micro helloworld call --name=Alice`. Commands, flags, their types and help
//! come from the schema that the service registered.

use std::{collections::BTreeMap, ffi::OsString};

use bytes::Bytes;
use micro_core::Fault as _;
use micro_proto::registry::{GetRequest, Options, SchemaRequest};
use micro_schema::{Method, Schema};

use crate::{
    command::call,
    command_line,
    context::{Context, OPERATOR},
    error::{Error, Result},
    nearest::nearest,
    session::{Call, DEADLINE, Session},
};

mod help;
mod words;

pub(crate) use help::example;
use words::Words;

/// Services that are part of the server: they are found in the operator's namespace from everywhere.
const BUILTIN: [&str; 12] = [
    "api", "auth", "broker", "config", "events", "network", "proxy", "registry", "router",
    "runtime", "source", "store",
];

/// Whether a name belongs to the server itself.
pub(crate) fn is_builtin(name: &str) -> bool {
    BUILTIN.contains(&name)
}

/// What a service offers and where it was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its name.
    pub(crate) name: String,
    /// The namespace it is registered in.
    pub(crate) namespace: String,
    /// Its methods.
    pub(crate) schema: Schema,
    /// `grpc` or `http`.
    pub(crate) protocol: String,
}

/// Runs the words of a command line as a service, a method and its flags.
pub(crate) async fn run(context: &Context, words: Vec<OsString>) -> Result<()> {
    let words = Words::parse(words)?;
    let session = match Session::open(context).await {
        Ok(session) => session,
        Err(e) => return Err(explain(e, &words.service)),
    };
    let Some(found) = find(&session, &words.service).await? else {
        return Err(unrecognised(&words.service));
    };
    if found.protocol == "http" {
        return Err(Error::failed(format!(
            "{} is an HTTP service and has no commands",
            found.name
        ))
        .with_hint(format!(
            "call it through the gateway, at /{}/ on port 8080 of the server",
            found.name
        )));
    }
    // One word with flags is a call, without it is a question.
    if words.wants_help || (words.endpoint.is_empty() && words.flags.is_empty()) {
        return help(context, &session, &found, &words).await;
    }
    let method = method(&found, &words.endpoint)?;
    let body = request(&found, method, &words.flags)?;
    let metadata = BTreeMap::new();
    let call = Call {
        service: &found.name,
        endpoint: &method.endpoint,
        messages: vec![body],
        metadata: &metadata,
        deadline: (!method.server_streaming).then_some(DEADLINE),
        namespace: Some(&found.namespace),
    };
    if method.server_streaming {
        let mut messages = session.stream(call).await?;
        while let Some(message) = messages.message().await.map_err(|s| session.failure(s))? {
            call::print(context.printer, &message, true)?;
        }
        return Ok(());
    }
    let answer = session.call(call).await?;
    call::print(context.printer, &answer, true)
}

/// Looks a service up in the namespace in force, then in the operator's.
///
/// # Errors
/// When the registry cannot be asked, or says nonsense.
pub(crate) async fn find(session: &Session, name: &str) -> Result<Option<Found>> {
    let here = session.namespace.as_str();
    let places: Vec<&str> = if is_builtin(name) || here == OPERATOR {
        vec![OPERATOR]
    } else {
        vec![here, OPERATOR]
    };
    for (i, place) in places.iter().enumerate() {
        let request = session.request(SchemaRequest {
            service: name.into(),
            options: Some(Options {
                domain: (*place).into(),
                ..Options::default()
            }),
        });
        match session.registry().schema(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let schema = if answer.descriptor_set.is_empty() {
                    Schema::from_endpoints(answer.endpoints)
                } else {
                    Schema::from_descriptor_set(&answer.descriptor_set)
                        .map_err(|e| Error::failed(format!("cannot use {name}: {e}")))?
                };
                return Ok(Some(Found {
                    name: name.into(),
                    namespace: (*place).into(),
                    schema,
                    protocol: answer.protocol,
                }));
            }
            Err(status) => {
                let error = session.failure(status);
                // Not everybody may look into the operator's namespace; that is no answer about
                // the service then.
                if !(error.is_not_found() || (i > 0 && error.is_refusal())) {
                    return Err(error);
                }
            }
        }
    }
    Ok(None)
}

async fn help(context: &Context, session: &Session, found: &Found, words: &Words) -> Result<()> {
    if words.endpoint.is_empty() {
        if context.printer.is_json() {
            return context.printer.json(&help::service_json(found));
        }
        let version = version(session, found).await;
        let text = help::service(found, &version);
        return context.printer.write(text.as_bytes());
    }
    let method = method(found, &words.endpoint)?;
    if context.printer.is_json() {
        context.printer.json(&help::method_json(method))
    } else {
        context
            .printer
            .write(help::method(found, method).as_bytes())
    }
}

/// The version that is registered; help without it is better than none.
async fn version(session: &Session, found: &Found) -> String {
    let request = session.request(GetRequest {
        service: found.name.clone(),
        options: Some(Options {
            domain: found.namespace.clone(),
            ..Options::default()
        }),
    });
    let versions = match session.registry().get_service(request).await {
        Ok(answer) => answer.into_inner().services,
        Err(_) => Vec::new(),
    };
    let mut versions: Vec<String> = versions.into_iter().map(|s| s.version).collect();
    versions.sort();
    if versions.is_empty() {
        return "latest".into();
    }
    versions.join(", ")
}

/// The method that the words after the service name.
fn method<'a>(found: &'a Found, words: &[String]) -> Result<&'a Method> {
    let name = &found.name;
    let wanted = match words {
        [] => format!("{name}.Call"),
        [method] if method.contains('.') => method.clone(),
        [method] => format!("{name}.{method}"),
        [structure, method] => format!("{structure}.{method}"),
        _ => {
            return Err(Error::failed("Incorrect number of arguments")
                .with_hint(format!(
                    "write `micro {name} METHOD --flag=value`; `micro {name} --help` lists the methods"
                ))
                .with_exit(128));
        }
    };
    if let Some(method) = found.schema.method(&wanted) {
        return Ok(method);
    }
    // The service's type need not be called like the service: the method alone may be clear.
    let named = |word: &str| {
        let wanted = folded(word);
        only(found.schema.methods().iter().filter(move |method| {
            method
                .endpoint
                .rsplit('.')
                .next()
                .is_some_and(|last| folded(last) == wanted)
        }))
    };
    let clear = match words {
        [] => named("call").or_else(|| only(found.schema.methods().iter())),
        [word] => named(word),
        _ => None,
    };
    if let Some(method) = clear {
        return Ok(method);
    }
    Err(Error::failed(format!(
        "Endpoint {} not found for service {name}",
        titled(&wanted)
    ))
    .with_hint(format!("`micro {name} --help` lists its commands"))
    .with_exit(128))
}

/// The one item there is, if it is the only one.
fn only<'a>(mut items: impl Iterator<Item = &'a Method>) -> Option<&'a Method> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

fn folded(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Each part with a capital first letter, as Micro writes endpoints.
fn titled(endpoint: &str) -> String {
    endpoint
        .split('.')
        .map(crate::error::capitalised)
        .collect::<Vec<_>>()
        .join(".")
}

/// The request that the flags describe.
fn request(found: &Found, method: &Method, flags: &[(String, String)]) -> Result<Bytes> {
    let value = method
        .request_json_from_pairs(flags)
        .map_err(|e| match &e {
            micro_schema::Error::UnknownField { field, .. } => {
                let known = method.flags();
                let path = help::command_of(found, method);
                let hint = nearest(field, known.iter().map(|f| f.name.as_str())).map_or_else(
                    || format!("`micro {path} --help` lists its flags"),
                    |name| format!("did you mean --{name}?"),
                );
                Error::failed(format!("Unknown flag: {field}"))
                    .with_hint(hint)
                    .with_exit(128)
            }
            micro_schema::Error::WrongType {
                field,
                expected,
                found,
            } => Error::failed(format!("--{field} must be {expected}, not {found}")).with_exit(128),
            _ => {
                let error = Error::failed(e.to_string()).with_exit(128);
                match e.hint() {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
        })?;
    let bytes = serde_json::to_vec(&value).map_err(std::io::Error::from)?;
    Ok(bytes.into())
}

fn unrecognised(word: &str) -> Error {
    let message = format!("Unrecognized micro command: {word}. Please refer to 'micro --help'");
    let error = Error::usage(message);
    match near_command(word) {
        Some(command) => error.with_hint(format!("did you mean `micro {command}`?")),
        None => error.with_hint("`micro services` lists the services that can be called by name"),
    }
}

/// A mistyped command needs no server to be told so.
fn explain(error: Error, word: &str) -> Error {
    match (&error, near_command(word)) {
        (Error::Connect { .. }, Some(command)) => {
            let exit = error.exit();
            Error::failed(error.to_string())
                .with_exit(exit)
                .with_hint(format!(
                    "{word} is no command of micro, so it was looked up as a service; did you mean `micro {command}`?"
                ))
        }
        _ => error,
    }
}

fn near_command(word: &str) -> Option<String> {
    let commands = command_line::command();
    let names: Vec<&str> = commands
        .get_subcommands()
        .map(clap::Command::get_name)
        .chain(["help"])
        .collect();
    nearest(word, names.into_iter()).map(str::to_owned)
}

#[cfg(test)]
mod tests;
