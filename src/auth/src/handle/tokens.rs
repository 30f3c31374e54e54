//! Tokens out of credentials, and accounts out of tokens (Micro contract §5.3, §2.3).

use std::{sync::Arc, time::Duration};

use micro_core::{Account, AccountId, Namespace, ServiceName, Timestamp, Version};

use super::{Handle, Shared, Verified};
use crate::{
    Error,
    repo::{self, Record},
    secrets,
    token::{Claims, looks_like_one},
};

/// The life of a user's token when no other was asked for.
const DEFAULT_LIFE: Duration = Duration::from_secs(15 * 60);
/// The life of a service's token, whatever was asked for: Micro's libraries get one when they start
/// and never again.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// How precisely the use of a refresh token is noted; each note is a synced write.
const NOTED: Duration = Duration::from_secs(3600);

/// What somebody shows to get a token.
pub enum Proof {
    /// The id or name of an account, and its secret.
    Secret {
        /// The id or name.
        id: String,
        /// The secret; also a token of this node, as services have it.
        secret: String,
    },
    /// A refresh token; also an access token that is still valid.
    Refresh(String),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret { .. } => "Proof::Secret",
            Self::Refresh(_) => "Proof::Refresh",
        })
    }
}

impl Proof {
    /// The proof in the fields of a request; a refresh token comes first.
    ///
    /// # Errors
    /// `Invalid` when there is none.
    pub fn of(id: String, secret: String, refresh: String) -> Result<Self, Error> {
        if !refresh.is_empty() {
            Ok(Self::Refresh(refresh))
        } else if !id.is_empty() && !secret.is_empty() {
            Ok(Self::Secret { id, secret })
        } else {
            Err(Error::CredentialsRequired)
        }
    }
}

/// An access token, and what renews it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// A JWT.
    pub access: String,
    /// Opaque, or the same JWT.
    pub refresh: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expiry: Timestamp,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("created", &self.created)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Exchanges a proof for a token that lives as long as `wish`, or 15 minutes. Tokens of services
    /// live for a year.
    ///
    /// # Errors
    /// `Invalid` when the proof proves nothing; `Exhausted` after too many wrong secrets.
    pub async fn token(
        &self,
        namespace: &Namespace,
        proof: Proof,
        wish: Option<Duration>,
    ) -> Result<Token, Error> {
        let life = wish.unwrap_or(DEFAULT_LIFE).min(YEAR);
        let (Proof::Secret { secret: shown, .. } | Proof::Refresh(shown)) = &proof;
        // Micro's way for services: their secret is a JWT of ours, in either field.
        if looks_like_one(shown) {
            let shown = shown.clone();
            if let Some(token) = self
                .work(move |shared| shared.exchange(&shown, life))
                .await?
            {
                return Ok(token);
            }
        }
        let namespace = namespace.clone();
        match proof {
            Proof::Refresh(token) => {
                self.work(move |shared| shared.refresh(&namespace, token, life))
                    .await
            }
            Proof::Secret { id, secret } => {
                self.hash(move |shared| shared.login(&namespace, &id, &secret, life))
                    .await
            }
        }
    }

    /// The id and the secret of a service that the node runs: the secret is a token for a year. No
    /// record is kept; the signature is the account.
    ///
    /// # Errors
    /// `Invalid` when name and version make no id; `Internal` when signing fails.
    pub fn service_account(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        version: &Version,
    ) -> Result<(AccountId, String), Error> {
        let id = AccountId::parse(&format!("{service}-{version}"))?;
        let account = Account {
            id: id.clone(),
            kind: "service".into(),
            issuer: namespace.clone(),
            scopes: vec!["service".into()],
            name: id.as_str().into(),
            metadata: std::collections::BTreeMap::new(),
        };
        let expiry = self.shared.clock.now().plus(YEAR);
        let token = self
            .shared
            .signer
            .sign(&Claims::of(&account, expiry, None))?;
        Ok((id, token))
    }
}

impl Shared {
    /// A token that is valid now, from memory if it was seen before.
    pub(super) fn verified(&self, token: &str) -> Option<Arc<Verified>> {
        if !looks_like_one(token) {
            return None;
        }
        let now = self.clock.now();
        let key = secrets::digest(token);
        if let Some(known) = self.verified.get(&key) {
            if known.holds(now) {
                return Some(known);
            }
            self.verified.invalidate(&key);
            return None;
        }
        let claims = self.signer.check(token, now)?;
        let (exp, generation) = (claims.exp, claims.generation);
        let turn = claims.turn.unwrap_or(0);
        let account = claims.account()?;
        let life = match generation {
            // What the node signed for its own services; see `service_account`.
            None if account.kind == "service" => None,
            // Every other account has to exist; one that a Micro server signed has no generation.
            _ => Some(self.living.get(&account.issuer, &account.id)?),
        };
        if let (Some(life), Some(generation)) = (&life, generation)
            && life.generation != generation
        {
            return None;
        }
        let verified = Arc::new(Verified {
            account: Arc::new(account),
            exp,
            turn,
            life,
        });
        self.verified.insert(key, Arc::clone(&verified));
        Some(verified)
    }

    /// A token for a token. A service keeps the one it has, which is as long as it can get; a user
    /// gets a new one unless the secret was changed meanwhile.
    fn exchange(&self, token: &str, life: Duration) -> Result<Option<Token>, Error> {
        let Some(verified) = self.verified(token) else {
            return Ok(None);
        };
        let now = self.clock.now();
        let account = &verified.account;
        if account.kind == "service" {
            return Ok(Some(Token {
                access: token.into(),
                refresh: token.into(),
                created: now,
                expiry: Timestamp(verified.exp.saturating_mul(1000)),
            }));
        }
        let Some(stored) = &verified.life else {
            return Ok(None);
        };
        if stored.turn() != verified.turn {
            return Ok(None);
        }
        let expiry = now.plus(life);
        let claims = Claims::of(account, expiry, Some((stored.generation, verified.turn)));
        let access = self.signer.sign(&claims)?;
        Ok(Some(Token {
            refresh: access.clone(),
            access,
            created: now,
            expiry,
        }))
    }

    fn refresh(
        &self,
        namespace: &Namespace,
        token: String,
        life: Duration,
    ) -> Result<Token, Error> {
        let digest = secrets::digest(&token);
        let (record, used) = self
            .sqlite
            .read_blocking(|c| repo::by_refresh(c, namespace, &digest))?
            .ok_or(Error::InvalidToken)?;
        let now = self.clock.now();
        if now > used.plus(NOTED) {
            let namespace = namespace.clone();
            self.sqlite
                .write_blocking(move |tx| repo::touch_refresh(tx, &namespace, &digest, now))?;
        }
        self.issue(&record, token, now, life)
    }

    fn login(
        &self,
        namespace: &Namespace,
        id: &str,
        secret: &str,
        life: Duration,
    ) -> Result<Token, Error> {
        let record = self
            .sqlite
            .read_blocking(|c| repo::by_id_or_name(c, namespace, id))?
            .ok_or(Error::AccountNotFound)?;
        self.check_secret(&record, secret)?;
        let refresh = secrets::random()?;
        let (digest, now) = (secrets::digest(&refresh), self.clock.now());
        let record = self.sqlite.write_blocking(move |tx| {
            Ok(repo::add_refresh(tx, &record, &digest, now)?.map(|()| record))
        })??;
        self.issue(&record, refresh, now, life)
    }

    fn issue(
        &self,
        record: &Record,
        refresh: String,
        now: Timestamp,
        life: Duration,
    ) -> Result<Token, Error> {
        let life = if record.account.kind == "service" {
            YEAR
        } else {
            life
        };
        let expiry = now.plus(life);
        let stored = Some((record.generation, record.turn));
        let claims = Claims::of(&record.account, expiry, stored);
        Ok(Token {
            access: self.signer.sign(&claims)?,
            refresh,
            created: now,
            expiry,
        })
    }
}
