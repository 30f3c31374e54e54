//! A connection to the identity proxy of an environment, with the login that is in force.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE},
    uri::PathAndQuery,
};
use jiff::Timestamp;
use micro_core::{Clock, Namespace};
use micro_proto::{
    auth::{
        TokenRequest, accounts_client::AccountsClient, auth_client::AuthClient,
        rules_client::RulesClient,
    },
    config::config_client::ConfigClient,
    events::{self, stream_client::StreamClient},
    registry::registry_client::RegistryClient,
    runtime::{runtime_client::RuntimeClient, source_client::SourceClient},
    store::{blob_store_client::BlobStoreClient, store_client::StoreClient},
};
use tokio_stream::Stream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    codec::Frames,
    context::{Context, Login},
    door::Door,
    environment::{self, Environment},
    error::{self, Error, Result},
    tokens::Token,
};

/// How long an access token is asked for.
pub(crate) const TOKEN_SECONDS: i64 = 86_400;
/// How long an ordinary call may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
const REFRESH: Duration = Duration::from_secs(10);
/// A token that ends within this time is renewed first.
const MARGIN: i64 = 60;

/// A connected environment.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where we are connected.
    pub(crate) environment: Environment,
    /// The namespace in force.
    pub(crate) namespace: Namespace,
    login: Option<Login>,
    channel: Channel,
    headers: HeaderMap,
}

/// A call of any method, with the message as JSON or as bytes of its own kind.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The registered name.
    pub(crate) service: &'a str,
    /// `Struct.Method`.
    pub(crate) endpoint: &'a str,
    /// The messages to send; one for a plain call.
    pub(crate) messages: Vec<Bytes>,
    /// Sent as headers.
    pub(crate) metadata: &'a BTreeMap<String, String>,
    /// For the answer; none for a stream that may last.
    pub(crate) deadline: Option<Duration>,
    /// Namespace of the service, when it is not the one in force.
    pub(crate) namespace: Option<&'a str>,
}

impl Session {
    /// Connects, and renews the token when it is about to end.
    ///
    /// # Errors
    /// When the environment is unknown or nobody answers.
    pub(crate) async fn open(context: &Context) -> Result<Self> {
        let environment = context.environment()?;
        let namespace = context.namespace(&environment)?;
        let login = context.login(&environment, namespace.as_str())?;
        let mut session = Self::connect(environment, namespace).await?;
        if let Some(login) = login {
            let login = session.renewed(context, login).await;
            session.act_as(login);
        }
        Ok(session)
    }

    /// Connects without an account.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) async fn connect(environment: Environment, namespace: Namespace) -> Result<Self> {
        let channel = dial(&environment.address).await?;
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(namespace.as_str()) {
            headers.insert("micro-namespace", value);
        }
        Ok(Self {
            environment,
            namespace,
            login: None,
            channel,
            headers,
        })
    }

    /// Sends the token of `login` with each call from now on.
    pub(crate) fn act_as(&mut self, login: Login) {
        let live = login.token.expiry == Timestamp::UNIX_EPOCH
            || login.token.expiry.as_second() > now().as_second();
        if !live {
            // An expired token is worth no more than none.
            return;
        }
        if let Ok(mut value) =
            HeaderValue::from_str(&format!("Bearer {}", login.token.access_token))
        {
            value.set_sensitive(true);
            self.headers.insert(AUTHORIZATION, value);
            self.login = Some(login);
        }
    }

    async fn renewed(&self, context: &Context, mut login: Login) -> Login {
        let ends = login.token.expiry.as_second() - MARGIN;
        if login.token.refresh_token.is_empty() || ends > now().as_second() {
            return login;
        }
        let mut request = Request::new(TokenRequest {
            refresh_token: login.token.refresh_token.clone(),
            token_expiry: TOKEN_SECONDS,
            options: Some(micro_proto::auth::Options {
                namespace: login.issuer.clone(),
            }),
            ..TokenRequest::default()
        });
        request.set_timeout(REFRESH);
        // A refusal leaves the command to go on as it is: what it needs will say what is missing.
        let Ok(answer) = self.auth().token(request).await else {
            return login;
        };
        if let Some(token) = answer.into_inner().token {
            login.token = stored(token, &login.token.refresh_token);
            // The token works for this command even if it cannot be kept for the next one.
            if let Err(e) = context.store(&self.environment, &login) {
                context.printer.note(&format!("note: {e}"));
            }
        }
        login
    }

    /// The account that acts, if any.
    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// A request with the ordinary deadline.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(DEADLINE);
        request
    }

    /// What a failed call means.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is handed to map_err as it is"
    )]
    pub(crate) fn failure(&self, status: Status) -> Error {
        error::of_status(
            &status,
            &self.environment.address,
            self.login.as_ref().map(|l| l.account.as_str()),
        )
    }

    fn door(&self) -> Door {
        Door::new(self.channel.clone(), Arc::new(self.headers.clone()))
    }

    /// Tokens and accounts.
    pub(crate) fn auth(&self) -> AuthClient<Door> {
        AuthClient::new(self.door())
    }

    /// The accounts of a namespace.
    pub(crate) fn accounts(&self) -> AccountsClient<Door> {
        AccountsClient::new(self.door())
    }

    /// The rules of a namespace.
    pub(crate) fn rules(&self) -> RulesClient<Door> {
        RulesClient::new(self.door())
    }

    /// Services and their schemas.
    pub(crate) fn registry(&self) -> RegistryClient<Door> {
        RegistryClient::new(self.door()).max_decoding_message_size(usize::MAX)
    }

    /// Deployments and logs.
    pub(crate) fn runtime(&self) -> RuntimeClient<Door> {
        RuntimeClient::new(self.door()).max_decoding_message_size(usize::MAX)
    }

    /// Uploads.
    pub(crate) fn source(&self) -> SourceClient<Door> {
        SourceClient::new(self.door())
    }

    /// Records.
    pub(crate) fn store(&self) -> StoreClient<Door> {
        StoreClient::new(self.door()).max_decoding_message_size(usize::MAX)
    }

    /// Blobs.
    pub(crate) fn blobs(&self) -> BlobStoreClient<Door> {
        BlobStoreClient::new(self.door()).max_decoding_message_size(usize::MAX)
    }

    /// Settings of services.
    pub(crate) fn config(&self) -> ConfigClient<Door> {
        ConfigClient::new(self.door()).max_decoding_message_size(usize::MAX)
    }

    /// Topics and what is published to them.
    pub(crate) fn events(&self) -> StreamClient<Door> {
        StreamClient::new(self.door()).max_decoding_message_size(usize::MAX)
    }

    /// Events that are kept.
    pub(crate) fn kept_events(&self) -> events::store_client::StoreClient<Door> {
        events::store_client::StoreClient::new(self.door()).max_decoding_message_size(usize::MAX)
    }

    /// Opens a stream of serialised messages, which need not be of one type in each direction.
    ///
    /// # Errors
    /// As [`Session::failure`] reads the status.
    pub(crate) async fn frames(
        &self,
        path: &'static str,
        frames: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>> {
        let mut client = Grpc::new(self.door()).max_decoding_message_size(usize::MAX);
        client.ready().await.map_err(|e| self.unready(&e))?;
        let answer = client
            .streaming(
                Request::new(frames),
                PathAndQuery::from_static(path),
                Frames,
            )
            .await
            .map_err(|s| self.failure(s))?;
        Ok(answer.into_inner())
    }

    /// Calls a method with JSON and gives the JSON of the answer.
    ///
    /// # Errors
    /// As [`Session::failure`] reads the status.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Bytes> {
        let (mut client, path) = self.prepare(&call)?;
        let message = call.messages.into_iter().next().unwrap_or_default();
        let request = with(message, call.metadata, call.deadline)?;
        client.ready().await.map_err(|e| self.unready(&e))?;
        let answer = client
            .unary(request, path, Frames)
            .await
            .map_err(|s| self.failure(s))?;
        Ok(answer.into_inner())
    }

    /// Calls a streaming method with JSON and gives the stream of JSON messages.
    ///
    /// # Errors
    /// As [`Session::failure`] reads the status.
    pub(crate) async fn stream(&self, call: Call<'_>) -> Result<Streaming<Bytes>> {
        let (mut client, path) = self.prepare(&call)?;
        let messages = tokio_stream::iter(call.messages);
        let request = with(messages, call.metadata, call.deadline)?;
        client.ready().await.map_err(|e| self.unready(&e))?;
        let answer = client
            .streaming(request, path, Frames)
            .await
            .map_err(|s| self.failure(s))?;
        Ok(answer.into_inner())
    }

    fn prepare(&self, call: &Call<'_>) -> Result<(Grpc<Door>, PathAndQuery)> {
        let path = path_of(call.service, call.endpoint)?;
        let mut headers = self.headers.clone();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/grpc+json"),
        );
        headers.insert(
            "x-content-type",
            HeaderValue::from_static("application/json"),
        );
        if let Some(value) = call.namespace.and_then(|n| HeaderValue::from_str(n).ok()) {
            headers.insert("micro-namespace", value);
        }
        let door = Door::new(self.channel.clone(), Arc::new(headers));
        let client = Grpc::new(door).max_decoding_message_size(usize::MAX);
        Ok((client, path))
    }

    fn unready(&self, error: &tonic::transport::Error) -> Error {
        Error::Connect {
            address: self.environment.address.clone(),
            reason: error::innermost(error),
        }
    }
}

/// The `:path` for an endpoint of a service (contract §3.1).
pub(crate) fn path_of(service: &str, endpoint: &str) -> Result<PathAndQuery> {
    let bad = || Error::MethodFormat(endpoint.into());
    let text = if endpoint.starts_with('/') {
        endpoint.to_owned()
    } else {
        let (structure, method) = endpoint.split_once('.').ok_or_else(bad)?;
        if structure.is_empty() || method.is_empty() || method.contains('.') {
            return Err(bad());
        }
        format!("/{service}.{structure}/{method}")
    };
    text.parse().map_err(|_| bad())
}

/// Puts headers and a deadline on a message.
///
/// # Errors
/// When a key or value cannot be a header.
pub(crate) fn with<T>(
    message: T,
    metadata: &BTreeMap<String, String>,
    deadline: Option<Duration>,
) -> Result<Request<T>> {
    let mut map = MetadataMap::new();
    for (key, value) in metadata {
        let bad = || Error::usage(format!("cannot send the metadata {key}={value}"));
        let name: AsciiMetadataKey = key.to_lowercase().parse().map_err(|_| bad())?;
        let value: AsciiMetadataValue = value.parse().map_err(|_| bad())?;
        map.insert(name, value);
    }
    if let Some(deadline) = deadline {
        // Services of Micro's Go library look at this one, in nanoseconds.
        if let Ok(value) = deadline.as_nanos().to_string().parse() {
            map.insert("timeout", value);
        }
    }
    let mut request = Request::new(message);
    *request.metadata_mut() = map;
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    Ok(request)
}

/// Connects to an address as Micro writes it: TLS on port 443 or without a port.
///
/// # Errors
/// When it is no address or nobody answers.
pub(crate) async fn dial(address: &str) -> Result<Channel> {
    if address.is_empty() {
        return Err(Error::failed("this environment has no address")
            .with_hint("give it one with `micro env add NAME ADDRESS`"));
    }
    let (full, secure) = environment::dial(address);
    let scheme = if secure { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{full}"))
        .map_err(|_| {
            Error::usage(format!("{address:?} is no address"))
                .with_hint("write it like host:8081, or a host name alone for TLS on port 443")
        })?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_adaptive_window(true);
    if secure {
        endpoint = endpoint.tls_config(roots()?).map_err(|e| Error::Connect {
            address: full.clone(),
            reason: error::innermost(&e),
        })?;
    }
    endpoint.connect().await.map_err(|e| Error::Connect {
        address: full,
        reason: error::innermost(&e),
    })
}

/// The certificates that this machine trusts, where the usual systems keep them.
fn roots() -> Result<ClientTlsConfig> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|v| !v.is_empty());
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let path = match &named {
        Some(path) => Some(Path::new(path)),
        None => usual.iter().map(Path::new).find(|p| p.exists()),
    };
    let path = path.ok_or_else(|| {
        Error::failed("this machine has no list of trusted certificates")
            .with_hint("install the package ca-certificates, or set SSL_CERT_FILE")
    })?;
    let pem = std::fs::read(path).map_err(Error::file("read", path))?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

/// The token as it is kept: a missing refresh token leaves the old one.
pub(crate) fn stored(token: micro_proto::auth::Token, old_refresh: &str) -> Token {
    let instant = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    Token {
        access_token: token.access_token,
        refresh_token: if token.refresh_token.is_empty() {
            old_refresh.into()
        } else {
            token.refresh_token
        },
        created: instant(token.created),
        expiry: instant(token.expiry),
    }
}

/// The time of this machine.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millisecond(Clock::System.now().0).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_become_micros_paths() {
        let path = |s, e| path_of(s, e).map(|p| p.to_string());
        assert_eq!(path("v1.foo", "Foo.Bar").unwrap(), "/v1.foo.Foo/Bar");
        assert_eq!(path("x", "/a.B/C").unwrap(), "/a.B/C");
        for bad in ["Bar", "A.B.C", ".B", "A."] {
            assert_eq!(path("x", bad).unwrap_err().exit(), 3, "{bad}");
        }
    }

    #[test]
    fn metadata_and_deadline_become_headers() {
        let metadata = BTreeMap::from([("X-Tenant".to_owned(), "a b".to_owned())]);
        let request = with((), &metadata, Some(Duration::from_millis(5))).unwrap();
        assert_eq!(request.metadata().get("x-tenant").unwrap(), "a b");
        assert_eq!(request.metadata().get("timeout").unwrap(), "5000000");
        let bad = BTreeMap::from([("a b".to_owned(), String::new())]);
        assert!(with((), &bad, None).is_err());
    }
}
