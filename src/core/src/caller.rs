//! Who is calling. The doors make a [`Caller`] from a token and put it into the extensions of each
//! request; built-in services read it from there and nowhere else.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    fault::{Fault, Kind},
    id::{AccountId, InvalidName, Namespace},
};

/// An identity proven by a token (Micro contract §5.1). It carries no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Unique within the issuer.
    pub id: AccountId,
    /// `user` or `service`; other words are stored but may administer nothing.
    #[serde(rename = "type")]
    pub kind: String,
    /// The namespace the account belongs to.
    pub issuer: Namespace,
    /// What rules and [`Caller::authorize_admin`] look at: `admin`, `service`, or the operator's own.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What people call it; the id when none was given.
    #[serde(default)]
    pub name: String,
    /// Free text, `created` among it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl Account {
    /// Whether the account has `scope`.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|s| s == scope)
    }

    /// Administrator of its own namespace: a user with scope `admin` or a service with scope `service`.
    pub fn is_admin(&self) -> bool {
        (self.kind == "user" && self.has_scope("admin"))
            || (self.kind == "service" && self.has_scope("service"))
    }

    /// Administrator of every namespace: an administrator issued by the operator's namespace.
    pub fn is_operator(&self) -> bool {
        self.issuer.is_operator() && self.is_admin()
    }
}

/// The identity and the namespace of one request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `None` for an anonymous caller.
    pub account: Option<Arc<Account>>,
    /// The namespace the request acts in.
    pub namespace: Namespace,
}

/// Why a caller may not act in a namespace (Micro contract §5.5; the texts are part of it).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// Anonymous.
    #[error("an account is required")]
    Anonymous,
    /// An account of another namespace.
    #[error("access denied to namespace")]
    OtherNamespace,
    /// An account without the administrator's scope.
    #[error("Unauthorized")]
    NotAdmin,
}

impl Fault for NotAllowed {
    fn kind(&self) -> Kind {
        match self {
            Self::Anonymous | Self::NotAdmin => Kind::Unauthenticated,
            Self::OtherNamespace => Kind::Denied,
        }
    }
}

/// Why a request that names a namespace has none to act in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// It is not the caller's.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// What was named cannot be a namespace.
    #[error(transparent)]
    Invalid(#[from] InvalidName),
}

impl Fault for NoTarget {
    fn kind(&self) -> Kind {
        match self {
            Self::NotAllowed(error) => error.kind(),
            Self::Invalid(error) => error.kind(),
        }
    }
}

impl Caller {
    /// An anonymous caller in `namespace`.
    pub fn anonymous(namespace: Namespace) -> Self {
        Self {
            account: None,
            namespace,
        }
    }

    /// The account, or [`NotAllowed::Anonymous`].
    ///
    /// # Errors
    /// `Unauthenticated` without an account.
    pub fn account(&self) -> Result<&Arc<Account>, NotAllowed> {
        self.account.as_ref().ok_or(NotAllowed::Anonymous)
    }

    /// May read in `namespace`: an account of it, or the operator.
    ///
    /// # Errors
    /// `Unauthenticated` or `Denied`.
    pub fn authorize(&self, namespace: &Namespace) -> Result<&Arc<Account>, NotAllowed> {
        let account = self.account()?;
        if account.is_operator() {
            return Ok(account);
        }
        if account.issuer != *namespace || !matches!(account.kind.as_str(), "user" | "service") {
            return Err(NotAllowed::OtherNamespace);
        }
        Ok(account)
    }

    /// May change things in `namespace`: its administrator, or the operator.
    ///
    /// # Errors
    /// `Unauthenticated` or `Denied`.
    pub fn authorize_admin(&self, namespace: &Namespace) -> Result<&Arc<Account>, NotAllowed> {
        let account = self.authorize(namespace)?;
        if account.is_admin() {
            Ok(account)
        } else {
            Err(NotAllowed::NotAdmin)
        }
    }

    /// The namespace that a request means when its options name `named`: that one, or where the
    /// request acts when it is empty. The caller may read in what this returns.
    ///
    /// Micro's service library says `micro`, whatever the namespace of the service is. A service of
    /// another namespace that does so means its own; there is nothing of `micro` for it anyway.
    ///
    /// # Errors
    /// `Unauthenticated` without an account, `Denied` for a namespace of others, `Invalid` for a name
    /// that no namespace can have.
    pub fn target(&self, named: &str) -> Result<Namespace, NoTarget> {
        let account = self.account()?;
        let meant = if named.is_empty() {
            self.namespace.as_str()
        } else {
            named
        };
        if meant == account.issuer.as_str()
            || (account.kind == "service" && meant == Namespace::OPERATOR)
        {
            self.authorize(&account.issuer)?;
            return Ok(account.issuer.clone());
        }
        let namespace = Namespace::parse(meant)?;
        self.authorize(&namespace)?;
        Ok(namespace)
    }

    /// As [`Caller::target`], for what only the administrator of that namespace may do.
    ///
    /// # Errors
    /// Those of [`Caller::target`], and `Unauthenticated` for an account without the scope.
    pub fn target_admin(&self, named: &str) -> Result<Namespace, NoTarget> {
        let namespace = self.target(named)?;
        self.authorize_admin(&namespace)?;
        Ok(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(kind: &str, issuer: &str, scopes: &[&str]) -> Caller {
        let account = Account {
            id: AccountId::parse("a").unwrap(),
            kind: kind.into(),
            issuer: Namespace::parse(issuer).unwrap(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            name: "a".into(),
            metadata: BTreeMap::new(),
        };
        Caller {
            account: Some(Arc::new(account)),
            namespace: Namespace::operator(),
        }
    }

    #[test]
    fn an_administrator_rules_its_own_namespace_only() {
        let foo = Namespace::parse("foo").unwrap();
        let bar = Namespace::parse("bar").unwrap();
        let admin = caller("user", "foo", &["admin"]);
        assert!(admin.authorize_admin(&foo).is_ok());
        assert_eq!(
            admin.authorize(&bar).unwrap_err(),
            NotAllowed::OtherNamespace
        );
        assert_eq!(
            caller("user", "foo", &[])
                .authorize_admin(&foo)
                .unwrap_err(),
            NotAllowed::NotAdmin
        );
        assert_eq!(
            caller("robot", "foo", &["admin"])
                .authorize(&foo)
                .unwrap_err(),
            NotAllowed::OtherNamespace
        );
        assert!(
            caller("user", "micro", &["admin"])
                .authorize_admin(&bar)
                .is_ok()
        );
        assert!(
            caller("user", "micro", &[]).authorize(&bar).is_err(),
            "a plain user of micro is no operator"
        );
        assert_eq!(
            Caller::anonymous(foo.clone()).authorize(&foo).unwrap_err(),
            NotAllowed::Anonymous
        );
    }

    /// The namespace meant by `caller` acting in `acting` and naming `named`.
    fn meant(mut caller: Caller, acting: &str, named: &str) -> Result<String, Kind> {
        caller.namespace = Namespace::parse(acting).unwrap();
        caller
            .target(named)
            .map(|namespace| namespace.to_string())
            .map_err(|error| error.kind())
    }

    #[test]
    fn a_service_that_says_micro_or_nothing_means_its_own_namespace() {
        let service = || caller("service", "foo", &["service"]);
        for (acting, named) in [
            ("micro", ""),
            ("micro", "micro"),
            ("foo", "micro"),
            ("foo", ""),
            ("micro", "foo"),
        ] {
            assert_eq!(
                meant(service(), acting, named),
                Ok("foo".to_owned()),
                "{acting} {named}"
            );
        }
        assert_eq!(meant(service(), "foo", "bar"), Err(Kind::Denied));
        assert_eq!(meant(service(), "bar", ""), Err(Kind::Denied));
    }

    #[test]
    fn a_user_is_not_sent_home_from_a_namespace_of_others() {
        let user = || caller("user", "foo", &["admin"]);
        assert_eq!(meant(user(), "foo", ""), Ok("foo".to_owned()));
        assert_eq!(meant(user(), "micro", "foo"), Ok("foo".to_owned()));
        for (acting, named) in [("micro", ""), ("foo", "micro"), ("foo", "bar")] {
            assert_eq!(
                meant(user(), acting, named),
                Err(Kind::Denied),
                "{acting} {named}"
            );
        }
        let nobody = Caller::anonymous(Namespace::parse("foo").unwrap());
        assert_eq!(meant(nobody, "foo", "foo"), Err(Kind::Unauthenticated));
        assert_eq!(
            meant(caller("robot", "foo", &["admin"]), "foo", "foo"),
            Err(Kind::Denied)
        );
    }

    #[test]
    fn the_operator_means_what_it_names() {
        for kind in ["user", "service"] {
            let operator = || caller(kind, "micro", &["admin", "service"]);
            assert_eq!(meant(operator(), "foo", ""), Ok("foo".to_owned()), "{kind}");
            assert_eq!(meant(operator(), "micro", "foo"), Ok("foo".to_owned()));
            assert_eq!(meant(operator(), "foo", "micro"), Ok("micro".to_owned()));
            assert_eq!(meant(operator(), "micro", "No such"), Err(Kind::Invalid));
        }
        let plain = caller("user", "micro", &[]);
        assert_eq!(meant(plain.clone(), "micro", ""), Ok("micro".to_owned()));
        assert_eq!(meant(plain, "micro", "foo"), Err(Kind::Denied));
    }

    #[test]
    fn only_an_administrator_is_given_a_target_to_change() {
        let foo = Namespace::parse("foo").unwrap();
        assert_eq!(
            caller("service", "foo", &["service"]).target_admin("micro"),
            Ok(foo)
        );
        assert_eq!(
            caller("user", "foo", &[])
                .target_admin("foo")
                .map_err(|e| e.kind()),
            Err(Kind::Unauthenticated)
        );
    }
}
