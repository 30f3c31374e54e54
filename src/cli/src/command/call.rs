//! `micro call` and `micro stream`: any endpoint, with JSON.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE},
    uri::PathAndQuery,
};
use micro_core::Fault as _;
use micro_schema::{Codec, Method, Schema, reflect};
use tonic::{Status, client::Grpc};

use crate::{
    codec::Frames,
    command::print_help,
    command_line,
    context::{Context, OPERATOR},
    door::Door,
    dynamic,
    error::{self, Error, Result},
    json,
    printer::{Output, Printer},
    session::{self, Call, DEADLINE, Session},
};

/// Calls an endpoint and prints the answer.
pub(crate) async fn call(context: &Context, args: &command_line::Call) -> Result<()> {
    let (Some(service), Some(endpoint)) = (&args.service, &args.endpoint) else {
        return print_help("call");
    };
    let asked = Asked::read(args, Some(DEADLINE))?;
    let answer = if let Some(address) = &args.address {
        let mut messages = asked.directly(context, address, service, endpoint).await?;
        messages.next().await?.unwrap_or_default()
    } else {
        let session = Session::open(context).await?;
        session.call(asked.call(service, endpoint)).await?
    };
    print(context.printer, &answer, true)
}

/// Calls a streaming endpoint and prints each message as it comes.
pub(crate) async fn stream(context: &Context, args: &command_line::Call) -> Result<()> {
    let (Some(service), Some(endpoint)) = (&args.service, &args.endpoint) else {
        return print_help("stream");
    };
    let asked = Asked::read(args, None)?;
    if let Some(address) = &args.address {
        let mut messages = asked.directly(context, address, service, endpoint).await?;
        while let Some(message) = messages.next().await? {
            print(context.printer, &message, false)?;
        }
        return Ok(());
    }
    let session = Session::open(context).await?;
    let mut messages = session.stream(asked.call(service, endpoint)).await?;
    while let Some(message) = messages.message().await.map_err(|s| session.failure(s))? {
        print(context.printer, &message, false)?;
    }
    Ok(())
}

/// Prints a message. Micro ends the answer of a call with a newline, but not those of a stream;
/// a newline between objects harms nobody who parses them, so both have it.
pub(crate) fn print(printer: Printer, message: &[u8], is_answer: bool) -> Result<()> {
    match printer.output() {
        Output::Raw => {
            printer.write(message)?;
            if is_answer {
                printer.write(b"\n")
            } else {
                Ok(())
            }
        }
        Output::Text | Output::Json => {
            if !json::is_valid(message) {
                return Err(Error::failed("Error while trying to format the response")
                    .with_hint("--output raw prints it as it is")
                    .with_exit(3));
            }
            printer.line(&json::indent(message))
        }
    }
}

/// What the command line asks to send.
struct Asked {
    body: Bytes,
    metadata: BTreeMap<String, String>,
    deadline: Option<Duration>,
}

impl Asked {
    fn read(args: &command_line::Call, deadline: Option<Duration>) -> Result<Self> {
        let deadline = match args.deadline() {
            Ok(given) => given.or(deadline),
            Err(_) => {
                return Err(Error::failed(
                    "Invalid format for request_timeout duration. Try 500ms or 5s",
                )
                .with_exit(2));
            }
        };
        Ok(Self {
            body: body(&args.body)?,
            metadata: pairs(&args.metadata)?,
            deadline,
        })
    }

    fn call<'a>(&'a self, service: &'a str, endpoint: &'a str) -> Call<'a> {
        Call {
            service,
            endpoint,
            messages: vec![self.body.clone()],
            metadata: &self.metadata,
            deadline: self.deadline,
            namespace: dynamic::is_builtin(service).then_some(OPERATOR),
        }
    }

    /// Calls an instance without the proxy. What it offers is asked of itself; one that cannot say
    /// is taken for one of Micro's Go services, which read JSON.
    async fn directly(
        &self,
        context: &Context,
        address: &str,
        service: &str,
        endpoint: &str,
    ) -> Result<Direct> {
        let deadline = self.deadline.unwrap_or(DEADLINE);
        let schema = match resolve(address).await {
            Some(at) => reflect::descriptor_set(at, deadline)
                .await
                .ok()
                .and_then(|set| Schema::from_descriptor_set(&set).ok()),
            None => None,
        };
        let method = schema.as_ref().and_then(|s| s.method(endpoint)).cloned();
        let path = match &method {
            Some(method) => method
                .path
                .parse::<PathAndQuery>()
                .map_err(|_| Error::MethodFormat(endpoint.into()))?,
            None => session::path_of(service, endpoint)?,
        };
        let (kind, body) = match &method {
            Some(method) if matches!(method.codec, Codec::Proto) => {
                let body = method.message_from_json(&self.body).map_err(|e| {
                    let error = Error::failed(format!("Error creating request {e}"));
                    match e.hint() {
                        Some(hint) => error.with_hint(hint),
                        None => error,
                    }
                })?;
                ("application/grpc+proto", body)
            }
            _ => ("application/grpc+json", self.body.clone()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let env = context.environment()?;
        let namespace = context.namespace(&env)?;
        if let Some(login) = context.login(&env, namespace.as_str())? {
            let bearer = format!("Bearer {}", login.token.access_token);
            if let Ok(value) = HeaderValue::from_str(&bearer) {
                headers.insert(AUTHORIZATION, value);
            }
        }
        let channel = session::dial(address).await?;
        let mut client =
            Grpc::new(Door::new(channel, Arc::new(headers))).max_decoding_message_size(usize::MAX);
        let request = session::with(tokio_stream::once(body), &self.metadata, self.deadline)?;
        client.ready().await.map_err(|e| Error::Connect {
            address: address.into(),
            reason: error::innermost(&e),
        })?;
        let failed = |s: Status| error::of_status(&s, address, None);
        let answer = client
            .streaming(request, path, Frames)
            .await
            .map_err(failed)?;
        Ok(Direct {
            messages: answer.into_inner(),
            method,
            address: address.into(),
        })
    }
}

/// The answers of an instance that is called without the proxy.
struct Direct {
    messages: tonic::Streaming<Bytes>,
    method: Option<Method>,
    address: String,
}

impl Direct {
    /// The next message as JSON.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let failed = |s: Status| error::of_status(&s, &self.address, None);
        let Some(message) = self.messages.message().await.map_err(failed)? else {
            return Ok(None);
        };
        match &self.method {
            Some(method) if matches!(method.codec, Codec::Proto) => {
                let json = method
                    .json_from_message(&message)
                    .map_err(|e| Error::failed(e.to_string()).with_exit(3))?;
                Ok(Some(json.into()))
            }
            _ => Ok(Some(message)),
        }
    }
}

async fn resolve(address: &str) -> Option<SocketAddr> {
    tokio::net::lookup_host(address).await.ok()?.next()
}

/// The request: what is left on the command line, which must be JSON; nothing means `{}`.
fn body(words: &[String]) -> Result<Bytes> {
    let text = words.join(" ");
    if text.trim().is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    if let Err(e) = serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        return Err(
            Error::failed(format!("Error creating request {e}")).with_hint(
                "write the request as JSON in single quotes, like '{\"name\": \"Alice\"}'",
            ),
        );
    }
    Ok(text.into())
}

/// `key=value` words.
///
/// # Errors
/// The first that is none.
pub(crate) fn pairs(words: &[String]) -> Result<BTreeMap<String, String>> {
    words
        .iter()
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .ok_or_else(|| Error::usage(format!("{word:?} is not of the form key=value")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn requests_must_be_json() {
        assert_eq!(body(&[]).unwrap(), "{}");
        assert_eq!(body(&words(&["{\"a\":", "1}"])).unwrap(), "{\"a\": 1}");
        let error = body(&words(&["{name: x}"])).unwrap_err();
        assert!(error.to_string().starts_with("Error creating request "));
        assert_eq!(error.exit(), 1);
    }

    #[test]
    fn metadata_has_keys_and_values() {
        let map = pairs(&words(&["a=b=c", "d="])).unwrap();
        assert_eq!(map["a"], "b=c");
        assert_eq!(map["d"], "");
        assert!(pairs(&words(&["a"])).is_err());
    }
}
