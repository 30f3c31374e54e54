//! Rules and the one decision over them (Micro contract §5.6). Pure: no clock, no disk, no await.

use std::sync::{Arc, LazyLock};

use micro_core::{Account, Fault, Kind, Namespace};

/// The id of the rule that every namespace starts with.
pub(crate) const DEFAULT: &str = "default";

/// What a rule says about whom it applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The call may go on.
    Granted,
    /// The call is refused.
    Denied,
}

/// What a rule is about; `*` stands for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `service` is the only kind there is.
    pub kind: String,
    /// The name of the service.
    pub name: String,
    /// `Struct.Method`, or a path; a path may end with `/*`.
    pub endpoint: String,
}

/// One rule of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique in its namespace.
    pub id: String,
    /// Empty: everybody, also without an account. `*`: any account of the namespace. `+`: any account
    /// of any namespace. Anything else: accounts of the namespace that have this scope.
    pub scope: String,
    /// What it is about.
    pub resource: Resource,
    /// What it says.
    pub access: Access,
    /// Higher ones are looked at first; among equals the one whose id sorts first.
    pub priority: i32,
}

/// A call that the rules refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller has no account; one might help.
    #[error("an account is required")]
    Unauthorized,
    /// The account may not.
    #[error("the rules of the namespace do not allow it")]
    Forbidden,
}

impl Fault for Denied {
    fn kind(&self) -> Kind {
        match self {
            Self::Unauthorized => Kind::Unauthenticated,
            Self::Forbidden => Kind::Denied,
        }
    }
}

impl Rule {
    /// What holds in a namespace until somebody says otherwise: everything is public.
    pub fn everything_is_public() -> Self {
        Self {
            id: DEFAULT.into(),
            scope: String::new(),
            resource: Resource {
                kind: "*".into(),
                name: "*".into(),
                endpoint: "*".into(),
            },
            access: Access::Granted,
            priority: 0,
        }
    }

    fn is_about(&self, kind: &str, service: &str, endpoint: &str) -> bool {
        let resource = &self.resource;
        (resource.kind == "*" || same(&resource.kind, kind))
            && (resource.name == "*" || same(&resource.name, service))
            && (resource.endpoint == "*"
                || same(&resource.endpoint, endpoint)
                || covers(&resource.endpoint, endpoint)
                || (self.access == Access::Denied && same_page(&resource.endpoint, endpoint)))
    }
}

/// The rules of a namespace of which nobody has changed any.
pub(crate) fn untouched() -> &'static Arc<[Rule]> {
    static RULES: LazyLock<Arc<[Rule]>> =
        LazyLock::new(|| Arc::from([Rule::everything_is_public()]));
    &RULES
}

/// Puts rules into the order in which [`decide`] looks at them.
pub(crate) fn order(rules: &mut [Rule]) {
    rules.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
}

/// Whether `account` may call `endpoint` of `service` in `namespace`; `rules` are that namespace's, in
/// order.
pub(crate) fn decide(
    rules: &[Rule],
    account: Option<&Account>,
    namespace: &Namespace,
    service: &str,
    endpoint: &str,
) -> Result<(), Denied> {
    let refusal = match account {
        Some(_) => Denied::Forbidden,
        None => Denied::Unauthorized,
    };
    for rule in rules {
        if !rule.is_about("service", service, endpoint) {
            continue;
        }
        let applies = match (rule.scope.as_str(), account) {
            ("", _) => true,
            (_, None) => false,
            ("+", Some(_)) => true,
            // Micro 3.19 and 5: an account of elsewhere is out as soon as a rule is about insiders,
            // whatever rules would follow.
            (_, Some(account)) if account.issuer != *namespace => return Err(refusal),
            ("*", Some(_)) => true,
            (scope, Some(account)) => account.has_scope(scope),
        };
        if applies {
            return match rule.access {
                Access::Granted => Ok(()),
                Access::Denied => Err(refusal),
            };
        }
    }
    Err(refusal)
}

/// Equal but for case.
fn same(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    let lower = |text: &'_ str| {
        text.chars()
            .flat_map(char::to_lowercase)
            .collect::<String>()
    };
    lower(a) == lower(b)
}

/// Whether two paths differ in a last slash at most. Nearly all web services answer both alike, so
/// who refuses one means the other as well; to allow one is to allow that one.
fn same_page(a: &str, b: &str) -> bool {
    fn bare(path: &str) -> &str {
        path.strip_suffix('/').unwrap_or(path)
    }
    a.starts_with('/') && b.starts_with('/') && same(bare(a), bare(b))
}

/// Whether `pattern`, a path that ends with `/*`, covers the path `endpoint`: `/a/*` covers `/a`,
/// `/a/b` and `/a/b/c`.
fn covers(pattern: &str, endpoint: &str) -> bool {
    let Some(start) = pattern.strip_suffix("/*") else {
        return false;
    };
    // Each place where a component of the endpoint ends.
    endpoint.contains('/')
        && (same(start, endpoint)
            || endpoint.match_indices('/').any(|(at, _)| {
                endpoint
                    .split_at_checked(at)
                    .is_some_and(|(components, _)| same(start, components))
            }))
}

#[cfg(test)]
mod tests;
