//! The gRPC face: messages to values, values to messages, and who may ask (Micro contract §5.5).
//!
//! The namespace of a request is its explicit option, else that of the caller.

use std::time::Duration;

use micro_core::{Account, Caller, Namespace};
use micro_proto::{
    auth::{self as proto, accounts_server::Accounts, auth_server::Auth, rules_server::Rules},
    status,
};
use tonic::{Request, Response, Status};

use crate::{
    Draft, Error,
    handle::{Handle, Proof, SecretChange},
    rules::{Access, Resource, Rule},
};

/// `auth.Auth`.
#[derive(Debug, Clone)]
pub struct AuthFace(Handle);

/// `auth.Accounts`.
#[derive(Debug, Clone)]
pub struct AccountsFace(Handle);

/// `auth.Rules`.
#[derive(Debug, Clone)]
pub struct RulesFace(Handle);

impl AuthFace {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(handle)
    }
}

impl AccountsFace {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(handle)
    }
}

impl RulesFace {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(handle)
    }
}

/// The caller that a door put there; nobody is an anonymous one in `micro`.
fn split<T>(request: Request<T>) -> (Caller, T) {
    let caller = request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(|| Caller::anonymous(Namespace::operator()));
    (caller, request.into_inner())
}

fn namespace(options: Option<proto::Options>, caller: &Caller) -> Result<Namespace, Error> {
    match options {
        Some(o) if !o.namespace.is_empty() => Ok(Namespace::parse(&o.namespace)?),
        _ => Ok(caller.namespace.clone()),
    }
}

fn answer<T>(method: &'static str, result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| {
        // Micro's id for this one error.
        let id = match error {
            Error::AccountExists | Error::NameExists => "auth",
            _ => method,
        };
        status::of(id, &error)
    })
}

fn message(account: Account, secret: String) -> proto::Account {
    proto::Account {
        id: account.id.into(),
        r#type: account.kind,
        metadata: account.metadata.into_iter().collect(),
        scopes: account.scopes,
        issuer: account.issuer.into(),
        secret,
        name: account.name,
    }
}

#[tonic::async_trait]
impl Auth for AuthFace {
    async fn generate(
        &self,
        request: Request<proto::GenerateRequest>,
    ) -> Result<Response<proto::GenerateResponse>, Status> {
        let (caller, request) = split(request);
        let result = async {
            let namespace = namespace(request.options, &caller)?;
            caller.authorize_admin(&namespace)?;
            let draft = Draft {
                id: request.id,
                kind: request.r#type,
                name: request.name,
                scopes: request.scopes,
                metadata: request.metadata.into_iter().collect(),
                secret: request.secret,
            };
            let (account, secret) = self.0.generate(&namespace, draft).await?;
            Ok(proto::GenerateResponse {
                account: Some(message(account, secret)),
            })
        };
        answer("auth.Auth.Generate", result.await)
    }

    async fn inspect(
        &self,
        request: Request<proto::InspectRequest>,
    ) -> Result<Response<proto::InspectResponse>, Status> {
        let result = self
            .0
            .inspect(&request.get_ref().token)
            .ok_or(Error::InvalidToken)
            .map(|account| proto::InspectResponse {
                account: Some(message(Account::clone(&account), String::new())),
            });
        answer("auth.Auth.Inspect", result)
    }

    async fn token(
        &self,
        request: Request<proto::TokenRequest>,
    ) -> Result<Response<proto::TokenResponse>, Status> {
        let (caller, request) = split(request);
        let result = async {
            let namespace = namespace(request.options, &caller)?;
            let proof = Proof::of(request.id, request.secret, request.refresh_token)?;
            let wish = u64::try_from(request.token_expiry)
                .ok()
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs);
            let token = self.0.token(&namespace, proof, wish).await?;
            Ok(proto::TokenResponse {
                token: Some(proto::Token {
                    access_token: token.access,
                    refresh_token: token.refresh,
                    created: token.created.unix_seconds(),
                    expiry: token.expiry.unix_seconds(),
                }),
            })
        };
        answer("auth.Auth.Token", result.await)
    }

    async fn claim(
        &self,
        request: Request<proto::ClaimRequest>,
    ) -> Result<Response<proto::ClaimResponse>, Status> {
        let request = request.into_inner();
        let result = self
            .0
            .claim(&request.token, &request.id, &request.secret)
            .await
            .map(|account| proto::ClaimResponse {
                account: Some(message(account, String::new())),
            });
        answer("auth.Auth.Claim", result)
    }
}

#[tonic::async_trait]
impl Accounts for AccountsFace {
    async fn list(
        &self,
        request: Request<proto::ListAccountsRequest>,
    ) -> Result<Response<proto::ListAccountsResponse>, Status> {
        let (caller, request) = split(request);
        let result = async {
            let namespace = namespace(request.options, &caller)?;
            caller.authorize_admin(&namespace)?;
            let accounts = self.0.list(&namespace).await?;
            Ok(proto::ListAccountsResponse {
                accounts: accounts
                    .into_iter()
                    .map(|account| message(account, String::new()))
                    .collect(),
            })
        };
        answer("auth.Accounts.List", result.await)
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteAccountRequest>,
    ) -> Result<Response<proto::DeleteAccountResponse>, Status> {
        let (caller, request) = split(request);
        let result = async {
            if request.id.is_empty() {
                return Err(Error::MissingId);
            }
            let namespace = namespace(request.options, &caller)?;
            let own = caller.authorize_admin(&namespace)?;
            self.0.delete(&namespace, &request.id, Some(own)).await?;
            Ok(proto::DeleteAccountResponse {})
        };
        answer("auth.Accounts.Delete", result.await)
    }

    async fn change_secret(
        &self,
        request: Request<proto::ChangeSecretRequest>,
    ) -> Result<Response<proto::ChangeSecretResponse>, Status> {
        let (caller, request) = split(request);
        let result = async {
            if request.new_secret.is_empty() {
                return Err(Error::BlankSecret);
            }
            let namespace = namespace(request.options, &caller)?;
            let account = caller.authorize(&namespace)?;
            // Micro: the operator, and services of the namespace, need not know the old one.
            let trusted =
                account.is_operator() || (account.kind == "service" && account.is_admin());
            let change = SecretChange {
                id: request.id,
                old: (!trusted).then_some(request.old_secret),
                new: request.new_secret,
            };
            self.0.change_secret(&namespace, change).await?;
            Ok(proto::ChangeSecretResponse {})
        };
        answer("auth.Accounts.ChangeSecret", result.await)
    }
}

fn rule(message: Option<proto::Rule>) -> Result<Rule, Error> {
    let message = message.ok_or(Error::RuleMissing)?;
    if message.id.is_empty() {
        return Err(Error::RuleIdMissing);
    }
    let access = message.access();
    let resource = message.resource.ok_or(Error::ResourceMissing)?;
    Ok(Rule {
        id: message.id,
        scope: message.scope,
        resource: Resource {
            kind: resource.r#type,
            name: resource.name,
            endpoint: resource.endpoint,
        },
        access: match access {
            proto::Access::Granted => Access::Granted,
            proto::Access::Denied => Access::Denied,
            proto::Access::Unknown => return Err(Error::AccessMissing),
        },
        priority: message.priority,
    })
}

fn rule_message(rule: Rule) -> proto::Rule {
    let access = match rule.access {
        Access::Granted => proto::Access::Granted,
        Access::Denied => proto::Access::Denied,
    };
    proto::Rule {
        id: rule.id,
        scope: rule.scope,
        resource: Some(proto::Resource {
            name: rule.resource.name,
            r#type: rule.resource.kind,
            endpoint: rule.resource.endpoint,
        }),
        access: access.into(),
        priority: rule.priority,
    }
}

#[tonic::async_trait]
impl Rules for RulesFace {
    async fn create(
        &self,
        request: Request<proto::CreateRequest>,
    ) -> Result<Response<proto::CreateResponse>, Status> {
        let (caller, request) = split(request);
        let result = async {
            let rule = rule(request.rule)?;
            let namespace = namespace(request.options, &caller)?;
            caller.authorize_admin(&namespace)?;
            self.0.create_rule(&namespace, rule).await?;
            Ok(proto::CreateResponse {})
        };
        answer("auth.Rules.Create", result.await)
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        let (caller, request) = split(request);
        let result = async {
            if request.id.is_empty() {
                return Err(Error::RuleIdMissing);
            }
            let namespace = namespace(request.options, &caller)?;
            caller.authorize_admin(&namespace)?;
            self.0.delete_rule(&namespace, &request.id).await?;
            Ok(proto::DeleteResponse {})
        };
        answer("auth.Rules.Delete", result.await)
    }

    async fn list(
        &self,
        request: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListResponse>, Status> {
        let (caller, request) = split(request);
        let result = namespace(request.options, &caller).and_then(|namespace| {
            caller.authorize(&namespace)?;
            let rules = self.0.rules(&namespace);
            Ok(proto::ListResponse {
                rules: rules.into_iter().map(rule_message).collect(),
            })
        });
        answer("auth.Rules.List", result)
    }
}

#[cfg(test)]
mod tests;
