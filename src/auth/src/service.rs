//! Opens identity: key, tables, memory, and the way in for the first account.

use std::{sync::Mutex, time::Duration};

use micro_core::{Clock, Namespace, StateDir};
use micro_proto::auth::{
    accounts_server::AccountsServer, auth_server::AuthServer, rules_server::RulesServer,
};
use micro_storage::Sqlite;

use crate::{
    Draft, Error,
    grpc::{AccountsFace, AuthFace, RulesFace},
    handle::{Entrance, Handle, Parts},
    keys::KeyPair,
    living::Living,
    repo::{self, Record},
    secrets,
    token::Signer,
};

/// How long the one-time login token is good for.
const ENTRANCE: Duration = Duration::from_secs(15 * 60);

/// What the operator decides.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether namespace `micro` has the account `admin` with the secret `micro` until it has a user.
    /// Only for a node that nobody else can reach. When it is off, an account with that well-known
    /// secret is removed.
    pub default_account: bool,
}

/// Identity, opened.
#[derive(Debug)]
pub struct Service {
    handle: Handle,
    first_access: Mutex<Option<String>>,
}

impl Service {
    /// Brings the tables up to date, reads the key that signs tokens (or makes it, which takes up to
    /// a few seconds) and fills the memory.
    ///
    /// # Errors
    /// Those of the database and of the key files.
    pub async fn open(
        settings: Settings,
        sqlite: &Sqlite,
        state: &StateDir,
        clock: Clock,
    ) -> Result<Self, Error> {
        let (sqlite, directory) = (sqlite.clone(), state.keys());
        let opening = tokio::task::spawn_blocking(move || {
            sqlite.migrate("auth", repo::STEPS)?;
            let keys = KeyPair::open(&directory)?;
            Self::fill(settings, sqlite, &keys, clock)
        });
        match opening.await {
            Ok(result) => result,
            Err(e) if e.is_panic() => Err(Error::Panicked),
            Err(_) => Err(Error::Stopping),
        }
    }

    fn fill(
        settings: Settings,
        sqlite: Sqlite,
        keys: &KeyPair,
        clock: Clock,
    ) -> Result<Self, Error> {
        let operator = Namespace::operator();
        if !settings.default_account && sqlite.write_blocking(repo::delete_preset)? > 0 {
            tracing::warn!(
                "Removed the default account, because this node can be reached by others."
            );
        }
        if settings.default_account && !sqlite.read_blocking(|c| repo::has_user(c, &operator))? {
            let draft = Draft {
                id: "admin".into(),
                scopes: vec!["admin".into()],
                ..Draft::default()
            };
            let (account, _) = draft.check(&operator, clock.now())?;
            let record = Record {
                preset: true,
                ..Record::new(account, "micro")?
            };
            match sqlite.write_blocking(move |tx| repo::insert_first(tx, &record))? {
                // Somebody named a robot `admin`: then there is no default account.
                Err(Error::AccountExists | Error::NameExists) => {}
                other => other?,
            }
        }
        let mut first_access = None;
        let mut entrance = None;
        if !sqlite.read_blocking(repo::has_administrator)? {
            let token = secrets::random()?;
            entrance = Some(Entrance {
                digest: secrets::digest(&token),
                until: clock.now().plus(ENTRANCE),
            });
            first_access = Some(token);
        }
        let (accounts, rules) =
            sqlite.read_blocking(|c| Ok((repo::living(c)?, repo::rules::load(c)?)))?;
        let living = Living::default();
        for (namespace, id, generation, turn) in accounts {
            living.born(&namespace, &id, generation, turn);
        }
        let handle = Handle::new(Parts {
            clock,
            sqlite,
            signer: Signer::new(keys),
            public_key: keys.public_text().into(),
            living,
            rules,
            entrance,
        });
        Ok(Self {
            handle,
            first_access: Mutex::new(first_access),
        })
    }

    /// What other code in this process holds.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The one-time login token of this start, for the operator's eyes; given out once. There is one
    /// while nobody can administer the node. It is good for 15 minutes and for one account
    /// ([`Handle::claim`]).
    pub fn first_access(&self) -> Option<String> {
        self.first_access
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }

    /// `auth.Auth`, ready to mount.
    pub fn auth_server(&self) -> AuthServer<AuthFace> {
        AuthServer::new(AuthFace::new(self.handle()))
    }

    /// `auth.Accounts`, ready to mount.
    pub fn accounts_server(&self) -> AccountsServer<AccountsFace> {
        AccountsServer::new(AccountsFace::new(self.handle()))
    }

    /// `auth.Rules`, ready to mount.
    pub fn rules_server(&self) -> RulesServer<RulesFace> {
        RulesServer::new(RulesFace::new(self.handle()))
    }

    /// All three together.
    pub fn grpc(&self) -> tonic::service::Routes {
        tonic::service::Routes::new(self.auth_server())
            .add_service(self.accounts_server())
            .add_service(self.rules_server())
    }
}
