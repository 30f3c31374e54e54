//! The service's own token: fetched with its credentials at the first need, renewed before it ends,
//! thrown away when the platform does not know it any more.

use std::{error::Error as _, sync::RwLock, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::{HeaderValue, uri::PathAndQuery},
};
use tonic_prost::ProstCodec;

use crate::{
    environment::Credentials,
    platform::{Platform, detail},
    wire::auth::{Options, TokenRequest, TokenResponse},
};

const TOKEN: PathAndQuery = PathAndQuery::from_static("/auth.Auth/Token");
/// What is asked for; the platform may grant another time.
const ASKED_LIFETIME: Duration = Duration::from_secs(3600);
/// However long a token lives, a new one is fetched once a day, so that signing keys can change.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long a renewal that failed is left alone while the old token is still good, and how young a
/// token must be to be kept although it was refused.
const PAUSE: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(10);

/// Who this service is towards the platform.
#[derive(Debug)]
pub(crate) struct Identity {
    credentials: Option<Credentials>,
    namespace: String,
    held: RwLock<Option<Held>>,
    /// One renewal at a time.
    turn: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Held {
    header: HeaderValue,
    fetched: Instant,
    renew: Instant,
    end: Instant,
}

impl Identity {
    /// The identity that `credentials` prove in `namespace`; anonymous without.
    pub(crate) fn new(credentials: Option<Credentials>, namespace: impl Into<String>) -> Self {
        Self {
            credentials,
            namespace: namespace.into(),
            held: RwLock::new(None),
            turn: Mutex::new(()),
        }
    }

    /// Whether there are credentials at all.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.credentials.is_none()
    }

    /// The value of `authorization`; `None` for an anonymous service.
    pub(crate) async fn header(&self, platform: &Platform) -> Result<Option<HeaderValue>, Status> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        if let Some(held) = self.fresh() {
            return Ok(Some(held.header));
        }
        let still_good = self.held().filter(|held| Instant::now() < held.end);
        let _turn = match &still_good {
            None => self.turn.lock().await,
            Some(held) => match self.turn.try_lock() {
                Ok(turn) => turn,
                // Somebody else renews it already.
                Err(_) => return Ok(Some(held.header.clone())),
            },
        };
        if let Some(held) = self.fresh() {
            return Ok(Some(held.header));
        }
        match (self.fetch(platform, credentials).await, still_good) {
            (Ok(held), _) => {
                let header = held.header.clone();
                self.hold(Some(held));
                Ok(Some(header))
            }
            (Err(_), Some(mut held)) => {
                let header = held.header.clone();
                held.renew = Instant::now() + PAUSE;
                self.hold(Some(held));
                Ok(Some(header))
            }
            (Err(status), None) => Err(status),
        }
    }

    /// The platform refused `header`: the next call fetches another token.
    ///
    /// A token that was just fetched is kept: the refusal means something else, and fetching one
    /// more for each call would help nobody.
    pub(crate) fn refused(&self, header: &HeaderValue) {
        let held = self.held();
        if held.is_some_and(|h| h.header == header && h.fetched.elapsed() > PAUSE) {
            self.hold(None);
        }
    }

    fn held(&self) -> Option<Held> {
        let guard = self
            .held
            .read()
            .unwrap_or_else(|broken| broken.into_inner());
        guard.clone()
    }

    fn fresh(&self) -> Option<Held> {
        self.held().filter(|held| Instant::now() < held.renew)
    }

    fn hold(&self, value: Option<Held>) {
        *self
            .held
            .write()
            .unwrap_or_else(|broken| broken.into_inner()) = value;
    }

    async fn fetch(&self, platform: &Platform, credentials: &Credentials) -> Result<Held, Status> {
        let request = TokenRequest {
            id: credentials.id.clone(),
            secret: credentials.secret.clone(),
            refresh_token: String::new(),
            token_expiry: i64::try_from(ASKED_LIFETIME.as_secs()).unwrap_or_default(),
            options: Some(Options {
                namespace: self.namespace.clone(),
            }),
        };
        let answer = timeout(DEADLINE, ask(platform, request)).await;
        let token = match answer {
            Ok(Ok(TokenResponse { token: Some(token) })) => token,
            Ok(Ok(TokenResponse { token: None })) => {
                return Err(self.failed(credentials, Code::Internal, "the answer has no token"));
            }
            // Not the account's fault; the status names the address already.
            Ok(Err(status)) if status.code() == Code::Unavailable => return Err(status),
            Ok(Err(status)) => {
                return Err(self.failed(credentials, status.code(), &detail(&status)));
            }
            Err(_) => {
                let text = format!("no answer within {} seconds", DEADLINE.as_secs());
                return Err(self.failed(credentials, Code::DeadlineExceeded, &text));
            }
        };
        let Ok(mut header) = HeaderValue::try_from(format!("Bearer {}", token.access_token)) else {
            return Err(self.failed(credentials, Code::Internal, "the token is no header"));
        };
        header.set_sensitive(true);
        // By the difference of the platform's own times, so that this machine's clock does not matter.
        let seconds = u64::try_from(token.expiry.saturating_sub(token.created)).unwrap_or_default();
        let lifetime = Duration::from_secs(seconds).min(MAX_LIFETIME);
        let fetched = Instant::now();
        Ok(Held {
            header,
            fetched,
            renew: fetched + lifetime / 5 * 4,
            end: fetched + lifetime,
        })
    }

    fn failed(&self, credentials: &Credentials, code: Code, why: &str) -> Status {
        Status::new(
            match code {
                Code::InvalidArgument | Code::NotFound => Code::Unauthenticated,
                other => other,
            },
            format!(
                "cannot log in as {} in namespace {}: {why}; check MICRO_CLIENT_ID and MICRO_CLIENT_SECRET",
                credentials.id, self.namespace
            ),
        )
    }
}

async fn ask(platform: &Platform, request: TokenRequest) -> Result<TokenResponse, Status> {
    let mut grpc = Grpc::new(platform.channel()?);
    grpc.ready()
        .await
        .map_err(|error| platform.unreachable(&error))?;
    let codec = ProstCodec::<TokenRequest, TokenResponse>::default();
    match grpc.unary(Request::new(request), TOKEN, codec).await {
        Ok(response) => Ok(response.into_inner()),
        // With a cause it comes from the connection, else from the platform.
        Err(status) => Err(match status.source() {
            Some(cause) => platform.unreachable(cause),
            None => status,
        }),
    }
}
