//! What a new account may look like. Pure.

use std::collections::BTreeMap;

use micro_core::{Account, AccountId, Namespace, Timestamp};

use crate::Error;

/// The longest name, scope and type, in bytes.
const MAX_WORD: usize = 200;
/// The longest secret, in bytes; hashing a longer one would only cost time.
pub(crate) const MAX_SECRET: usize = 1024;
/// Metadata and scopes travel in every token, hence in a header of every request.
const MAX_BAGGAGE: usize = 4096;

/// An account that is to be made.
#[derive(Clone, Default)]
pub struct Draft {
    /// The id; required.
    pub id: String,
    /// `user` when empty.
    pub kind: String,
    /// The id when empty.
    pub name: String,
    /// What rules look at.
    pub scopes: Vec<String>,
    /// Free text.
    pub metadata: BTreeMap<String, String>,
    /// A random one when empty.
    pub secret: String,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl Draft {
    /// The account it describes, and the secret that was given.
    pub(crate) fn check(
        self,
        namespace: &Namespace,
        now: Timestamp,
    ) -> Result<(Account, Option<String>), Error> {
        if self.id.is_empty() {
            return Err(Error::IdRequired);
        }
        let id = AccountId::parse(&self.id)?;
        let or = |text: String, other: &str| if text.is_empty() { other.into() } else { text };
        let name = or(self.name, id.as_str());
        let kind = or(self.kind, "user");
        bounded("name", name.len(), MAX_WORD)?;
        bounded("type", kind.len(), MAX_WORD)?;
        check_secret_length(&self.secret)?;
        let scopes: Vec<String> = self.scopes.into_iter().filter(|s| !s.is_empty()).collect();
        let mut metadata = self.metadata;
        metadata.insert("created".into(), now.unix_seconds().to_string());
        let baggage = scopes.iter().map(String::len).sum::<usize>()
            + metadata
                .iter()
                .map(|(k, v)| k.len() + v.len())
                .sum::<usize>();
        bounded("list of scopes and metadata", baggage, MAX_BAGGAGE)?;
        let account = Account {
            id,
            kind,
            issuer: namespace.clone(),
            scopes,
            name,
            metadata,
        };
        Ok((account, Some(self.secret).filter(|s| !s.is_empty())))
    }
}

/// Refuses a secret that is longer than anybody's.
pub(crate) fn check_secret_length(secret: &str) -> Result<(), Error> {
    bounded("secret", secret.len(), MAX_SECRET)
}

/// Refuses what is longer than its limit.
pub(crate) fn bounded(what: &'static str, length: usize, limit: usize) -> Result<(), Error> {
    if length > limit {
        Err(Error::TooLong { what, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in() {
        let draft = Draft {
            id: "bob".into(),
            metadata: [("created".into(), "1".into()), ("a".into(), "b".into())].into(),
            scopes: vec![String::new(), "x".into()],
            ..Draft::default()
        };
        let (account, secret) = draft
            .check(&Namespace::operator(), Timestamp(5_000))
            .unwrap();
        assert_eq!(
            (account.kind.as_str(), account.name.as_str()),
            ("user", "bob")
        );
        assert_eq!(account.scopes, ["x"]);
        assert_eq!(account.metadata["created"], "5");
        assert_eq!(account.metadata["a"], "b");
        assert_eq!(secret, None);
    }

    #[test]
    fn an_account_must_fit_into_a_header() {
        let check = |draft: Draft| draft.check(&Namespace::operator(), Timestamp(0));
        assert!(matches!(check(Draft::default()), Err(Error::IdRequired)));
        let bad = Draft {
            id: "a b".into(),
            ..Draft::default()
        };
        assert!(matches!(check(bad), Err(Error::Name(_))));
        let long = Draft {
            id: "a".into(),
            scopes: vec!["x".repeat(MAX_BAGGAGE + 1)],
            ..Draft::default()
        };
        assert!(matches!(check(long), Err(Error::TooLong { .. })));
    }
}
