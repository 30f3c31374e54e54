//! Who calls, and who this service is.
//!
//! ```no_run
//! use micro_sdk::{Request, Status, auth::Auth};
//!
//! async fn greet(auth: &Auth, request: &Request<()>) -> Result<String, Status> {
//!     Ok(match auth.caller(request).await? {
//!         Some(account) => format!("Hello {}", account.name),
//!         None => "Hello stranger".to_owned(),
//!     })
//! }
//! ```
//!
//! The platform has checked the rules before a call arrives: this is for what a service wants to
//! know beyond them.

use std::collections::HashMap;

use tonic::{Request, codegen::http::HeaderValue};

use crate::{
    Error, Kind, Mesh, call,
    wire::auth::{self as wire, InspectRequest, InspectResponse},
};

/// Identity. Made by [`Mesh::auth`]; clones are cheap.
///
/// ```no_run
/// let auth = micro_sdk::mesh().auth();
/// ```
#[derive(Debug, Clone)]
pub struct Auth {
    mesh: Mesh,
}

/// Whom a token belongs to.
///
/// ```no_run
/// # fn example(account: micro_sdk::auth::Account) {
/// println!("{} of {} may {:?}", account.id, account.namespace, account.scopes);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The id.
    pub id: String,
    /// What people call it; often the same.
    pub name: String,
    /// `user`, `service` or another.
    pub kind: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Where it lives.
    pub namespace: String,
    /// What else is known.
    pub metadata: HashMap<String, String>,
}

impl Account {
    /// Whether it has a scope.
    ///
    /// ```no_run
    /// # fn example(account: micro_sdk::auth::Account) {
    /// let may_write = account.has_scope("notes:write");
    /// # }
    /// ```
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|has| has == scope)
    }
}

impl From<wire::Account> for Account {
    fn from(account: wire::Account) -> Self {
        Self {
            id: account.id,
            name: account.name,
            kind: account.r#type,
            scopes: account.scopes,
            namespace: account.issuer,
            metadata: account.metadata,
        }
    }
}

impl Auth {
    pub(crate) const fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// Whose token this is; `None` when it is not valid, or not any more.
    ///
    /// ```no_run
    /// # async fn example(auth: micro_sdk::auth::Auth, token: &str) -> Result<(), micro_sdk::Error> {
    /// if let Some(account) = auth.inspect(token).await? {
    ///     println!("{}", account.id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn inspect(&self, token: &str) -> Result<Option<Account>, Error> {
        let request = InspectRequest {
            token: token.to_owned(),
            options: None,
        };
        let answer: Result<InspectResponse, _> =
            call::unary(&self.mesh, "/auth.Auth/Inspect", request).await;
        match answer {
            Ok(answer) => Ok(answer.account.map(Account::from)),
            Err(status) => match Error::call("inspect the token", &status) {
                error if matches!(error.kind(), Kind::Invalid | Kind::NotFound) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Who sent a request to this service; `None` for an anonymous caller.
    ///
    /// ```no_run
    /// # async fn example<T>(auth: micro_sdk::auth::Auth, request: micro_sdk::Request<T>)
    /// # -> Result<(), micro_sdk::Error> {
    /// let caller = auth.caller(&request).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    // Not an `async fn`, whose future would hold the request: that of a stream cannot be shared.
    pub fn caller<'a, T>(
        &'a self,
        request: &Request<T>,
    ) -> impl Future<Output = Result<Option<Account>, Error>> + Send + use<'a, T> {
        let header = request.metadata().get("authorization");
        let token = header
            .and_then(|value| bearer(value.to_str().ok()?))
            .map(str::to_owned);
        async move {
            match token {
                Some(token) => self.inspect(&token).await,
                None => Ok(None),
            }
        }
    }

    /// The account of this service; `None` when it has no credentials.
    ///
    /// ```no_run
    /// # async fn example(auth: micro_sdk::auth::Auth) -> Result<(), micro_sdk::Error> {
    /// if let Some(account) = auth.identity().await? {
    ///     println!("this is {} in namespace {}", account.id, account.namespace);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn identity(&self) -> Result<Option<Account>, Error> {
        let header: Option<HeaderValue> = self
            .mesh
            .token()
            .await
            .map_err(|status| Error::call("log in", &status))?;
        match header
            .as_ref()
            .and_then(|value| bearer(value.to_str().ok()?))
        {
            Some(token) => self.inspect(token).await,
            None => Ok(None),
        }
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_of_a_stream_can_be_asked_for() {
        fn is_send<T: Send>(_: T) {}
        let auth = crate::mesh().auth();
        let request = Request::new(std::cell::Cell::new(0));
        is_send(auth.caller(&request));
    }

    #[test]
    fn only_bearer_tokens_are_tokens() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
