//! What every command starts from: the user's files, the environment and namespace in force, and who
//! is logged in there.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use micro_core::Namespace;

use crate::{
    config_file::ConfigFile,
    environment::{self, Environment},
    error::{Error, Result},
    printer::Printer,
    tokens::{self, Owner, Token},
};

/// Namespace of the operator, and of people who never chose one.
pub(crate) const OPERATOR: &str = "micro";

/// The state of one command.
#[derive(Debug)]
pub(crate) struct Context {
    /// The terminal.
    pub(crate) printer: Printer,
    /// `config.json`.
    pub(crate) config: ConfigFile,
    tokens: PathBuf,
    chosen_env: Option<String>,
    chosen_namespace: Option<String>,
}

/// A login that is in force.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// The account.
    pub(crate) account: String,
    /// The namespace that issued it.
    pub(crate) issuer: String,
    /// Its token, perhaps expired.
    pub(crate) token: Token,
}

impl Context {
    /// Reads the user's files.
    ///
    /// # Errors
    /// When there is no home folder or a file is damaged.
    pub(crate) fn load(
        printer: Printer,
        config: Option<&Path>,
        env: Option<String>,
        namespace: Option<String>,
    ) -> Result<Self> {
        let home = std::env::home_dir()
            .filter(|h| !h.as_os_str().is_empty())
            .ok_or_else(|| {
                Error::failed("cannot tell where your home folder is").with_hint("set HOME")
            })?
            .join(".micro");
        Ok(Self {
            printer,
            config: ConfigFile::load(&config.map_or_else(|| home.join("config.json"), Into::into))?,
            tokens: home.join("tokens"),
            chosen_env: env,
            chosen_namespace: namespace.filter(|n| !n.is_empty()),
        })
    }

    /// The name of the environment that flags or variables chose.
    pub(crate) fn chosen_env(&self) -> Option<&str> {
        self.chosen_env.as_deref()
    }

    /// From here on as if `name` had been chosen.
    pub(crate) fn choose_env(&mut self, name: &str) {
        self.chosen_env = Some(name.into());
    }

    /// The environment in force.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn environment(&self) -> Result<Environment> {
        environment::current(&self.config, self.chosen_env())
    }

    /// The namespace in force in an environment.
    ///
    /// # Errors
    /// When the chosen text cannot name one.
    pub(crate) fn namespace(&self, env: &Environment) -> Result<Namespace> {
        let text = self
            .chosen_namespace
            .clone()
            .or_else(|| self.config.get(&format!("namespaces.{}.current", env.name)))
            .unwrap_or_else(|| OPERATOR.into());
        Namespace::parse(&text).map_err(|e| {
            Error::usage(e.to_string()).with_hint("choose one with `micro user namespace set NAME`")
        })
    }

    /// Who acts in `namespace`: the account that logged in there, else the operator's, who may act in
    /// every namespace.
    ///
    /// # Errors
    /// When the tokens cannot be read.
    pub(crate) fn login(&self, env: &Environment, namespace: &str) -> Result<Option<Login>> {
        if let Some(login) = self.login_in(env, namespace)? {
            return Ok(Some(login));
        }
        if let Some(login) = self.legacy(env, namespace) {
            return Ok(Some(login));
        }
        if namespace == OPERATOR {
            return Ok(None);
        }
        self.login_in(env, OPERATOR)
    }

    fn login_in(&self, env: &Environment, namespace: &str) -> Result<Option<Login>> {
        // Micro keeps one current user per environment; we also remember one per namespace, so that
        // logging in elsewhere does not log out here.
        let keys = [
            format!("{}.current-user", env.name),
            format!("{}.users.{namespace}", env.name),
        ];
        for account in keys.iter().filter_map(|key| self.config.get(key)) {
            let owner = Owner {
                address: &env.address,
                namespace,
                account: &account,
            };
            if let Some(token) = tokens::get(&self.tokens, &owner)? {
                return Ok(Some(Login {
                    issuer: namespace.into(),
                    account,
                    token,
                }));
            }
        }
        Ok(None)
    }

    /// Where the first versions of Micro kept the token.
    fn legacy(&self, env: &Environment, namespace: &str) -> Option<Login> {
        let get = |key: &str| self.config.get(&format!("micro.auth.{}.{key}", env.name));
        let seconds = get("expiry").and_then(|t| t.parse().ok()).unwrap_or(0);
        Some(Login {
            account: self
                .config
                .get(&format!("{}.current-user", env.name))
                .unwrap_or_default(),
            issuer: namespace.into(),
            token: Token {
                access_token: get("token")?,
                refresh_token: get("refresh-token").unwrap_or_default(),
                created: Timestamp::UNIX_EPOCH,
                expiry: Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH),
            },
        })
    }

    /// Remembers a login.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn remember(&mut self, env: &Environment, login: &Login) -> Result<()> {
        self.store(env, login)?;
        let current = format!("{}.current-user", env.name);
        let here = format!("{}.users.{}", env.name, login.issuer);
        self.config.set(&current, &login.account)?;
        self.config.set(&here, &login.account)
    }

    /// Stores a refreshed token.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn store(&self, env: &Environment, login: &Login) -> Result<()> {
        let owner = Owner {
            address: &env.address,
            namespace: &login.issuer,
            account: &login.account,
        };
        tokens::put(&self.tokens, &owner, &login.token)
    }

    /// Forgets who acts in `namespace`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn forget(&mut self, env: &Environment, namespace: &str) -> Result<()> {
        if let Some(login) = self.login(env, namespace)? {
            let owner = Owner {
                address: &env.address,
                namespace: &login.issuer,
                account: &login.account,
            };
            tokens::remove(&self.tokens, &owner)?;
        }
        for key in ["token", "refresh-token", "expiry"] {
            self.config
                .delete(&format!("micro.auth.{}.{key}", env.name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printer::Output;

    fn context(dir: &Path, namespace: Option<&str>) -> Context {
        Context {
            printer: Printer::new(Output::Text),
            config: ConfigFile::load(&dir.join("config.json")).unwrap(),
            tokens: dir.join("tokens"),
            chosen_env: None,
            chosen_namespace: namespace.map(Into::into),
        }
    }

    fn login(account: &str, issuer: &str) -> Login {
        Login {
            account: account.into(),
            issuer: issuer.into(),
            token: Token {
                access_token: format!("token of {account}"),
                refresh_token: String::new(),
                created: Timestamp::UNIX_EPOCH,
                expiry: Timestamp::UNIX_EPOCH,
            },
        }
    }

    #[test]
    fn a_login_elsewhere_does_not_log_out_here() {
        let dir = tempfile::tempdir().unwrap();
        let mut context = context(dir.path(), None);
        let env = context.environment().unwrap();
        context.remember(&env, &login("admin", "micro")).unwrap();
        context.remember(&env, &login("bob", "foo")).unwrap();
        let who = |c: &Context, ns: &str| c.login(&env, ns).unwrap().map(|l| l.account);
        assert_eq!(who(&context, "micro").as_deref(), Some("admin"));
        assert_eq!(who(&context, "foo").as_deref(), Some("bob"));
        assert_eq!(
            who(&context, "bar").as_deref(),
            Some("admin"),
            "the operator"
        );
        context.forget(&env, "micro").unwrap();
        assert_eq!(who(&context, "micro"), None);
        assert_eq!(who(&context, "bar"), None);
        assert_eq!(who(&context, "foo").as_deref(), Some("bob"));
        assert_eq!(
            context.config.get("local.current-user").as_deref(),
            Some("bob")
        );
    }

    #[test]
    fn the_old_place_of_the_token_is_read_and_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let mut context = context(dir.path(), None);
        let env = context.environment().unwrap();
        context
            .config
            .set("micro.auth.local.token", "a.b.c")
            .unwrap();
        context
            .config
            .set("micro.auth.local.expiry", "1700000000")
            .unwrap();
        let found = context.login(&env, "micro").unwrap().unwrap();
        assert_eq!(found.token.access_token, "a.b.c");
        assert_eq!(found.token.expiry.as_second(), 1_700_000_000);
        context.forget(&env, "micro").unwrap();
        assert!(context.login(&env, "micro").unwrap().is_none());
    }

    #[test]
    fn a_flag_beats_the_stored_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let mut stored = context(dir.path(), None);
        let env = stored.environment().unwrap();
        assert_eq!(stored.namespace(&env).unwrap().as_str(), "micro");
        stored
            .config
            .set("namespaces.local.current", "foo")
            .unwrap();
        assert_eq!(stored.namespace(&env).unwrap().as_str(), "foo");
        assert_eq!(
            context(dir.path(), Some("bar"))
                .namespace(&env)
                .unwrap()
                .as_str(),
            "bar"
        );
        assert!(context(dir.path(), Some("Bar")).namespace(&env).is_err());
    }
}
