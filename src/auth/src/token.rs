//! Access tokens: JWTs signed with RS256 (Micro contract §5.4), and nothing else.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use micro_core::{Account, AccountId, Namespace, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, keys::KeyPair};

mod provider;

/// The longest token that is looked at; a header of a request cannot be much longer anyway.
const MAX_TOKEN: usize = 16 * 1024;

/// What a token says. Micro's claims, and two of ours that its clients ignore.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(rename = "type", default)]
    kind: String,
    // Micro's Go code writes `null` for what is empty.
    #[serde(default, deserialize_with = "or_default")]
    scopes: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    name: String,
    /// Unix seconds.
    pub(crate) exp: i64,
    iss: String,
    sub: String,
    /// The generation of a stored account; absent for accounts that exist by signature only.
    #[serde(rename = "gen", default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
    /// How often its secret had been changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) turn: Option<i64>,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Claims {
    /// Claims for `account` until `expiry`. `stored` is the generation and turn of a stored account.
    pub(crate) fn of(account: &Account, expiry: Timestamp, stored: Option<(i64, i64)>) -> Self {
        Self {
            kind: account.kind.clone(),
            scopes: account.scopes.clone(),
            metadata: account.metadata.clone(),
            name: account.name.clone(),
            exp: expiry.unix_seconds(),
            iss: account.issuer.as_str().into(),
            sub: account.id.as_str().into(),
            generation: stored.map(|(generation, _)| generation),
            turn: stored.map(|(_, turn)| turn),
        }
    }

    /// The account they speak of; `None` when a name in them is none.
    pub(crate) fn account(self) -> Option<Account> {
        Some(Account {
            id: AccountId::parse(&self.sub).ok()?,
            issuer: Namespace::parse(&self.iss).ok()?,
            kind: self.kind,
            scopes: self.scopes,
            name: if self.name.is_empty() {
                self.sub
            } else {
                self.name
            },
            metadata: self.metadata,
        })
    }
}

/// Signs and checks tokens.
pub(crate) struct Signer {
    sign: EncodingKey,
    check: DecodingKey,
    validation: Validation,
}

impl Signer {
    pub(crate) fn new(keys: &KeyPair) -> Self {
        provider::install();
        // The algorithm is pinned: a token that names another one is refused before any key is used.
        let mut validation = Validation::new(Algorithm::RS256);
        // Time is ours to judge, because tests move it.
        validation.validate_exp = false;
        Self {
            sign: EncodingKey::from_rsa_der(keys.private_der()),
            check: DecodingKey::from_rsa_der(keys.public_der()),
            validation,
        }
    }

    /// A token. Takes about a millisecond of computing.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &self.sign).map_err(|error| {
            tracing::error!(%error, "A token could not be signed.");
            Error::Crypto("sign a token")
        })
    }

    /// The claims of a token of ours that has not expired.
    pub(crate) fn check(&self, token: &str, now: Timestamp) -> Option<Claims> {
        if !looks_like_one(token) {
            return None;
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.check, &self.validation)
            .ok()?
            .claims;
        (claims.exp > now.unix_seconds()).then_some(claims)
    }
}

/// Three parts between dots: cheap to see, and what Micro's clients look for, too.
pub(crate) fn looks_like_one(text: &str) -> bool {
    text.len() <= MAX_TOKEN && text.bytes().filter(|b| *b == b'.').count() == 2
}

#[cfg(test)]
mod tests;
