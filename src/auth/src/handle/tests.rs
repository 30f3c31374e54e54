//! Behaviour of [`Handle`] on a temporary directory with a clock that tests move.

use micro_core::{AccountId, Fault as _, Kind, ServiceName, StateDir, Version};

use super::*;
use crate::{
    Access, Draft, Proof, Resource, Rule, SecretChange, Service, Settings, Token, keys, repo,
};

/// A node's identity that can be stopped and started again.
pub(crate) struct Node {
    dir: tempfile::TempDir,
    pub(crate) clock: Clock,
    pub(crate) service: Service,
    sqlite: Sqlite,
}

impl Node {
    pub(crate) async fn start(default_account: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::fake(Timestamp(1_700_000_000_000));
        keys::tests::place(&StateDir::new(dir.path()).keys());
        let (sqlite, service) = Self::open(dir.path(), default_account, &clock).await;
        Self {
            dir,
            clock,
            service,
            sqlite,
        }
    }

    async fn open(
        dir: &std::path::Path,
        default_account: bool,
        clock: &Clock,
    ) -> (Sqlite, Service) {
        let state = StateDir::new(dir);
        let sqlite = Sqlite::open(&state.sqlite()).unwrap();
        let settings = Settings { default_account };
        let service = Service::open(settings, &sqlite, &state, clock.clone())
            .await
            .unwrap();
        (sqlite, service)
    }

    async fn restart(&mut self, default_account: bool) {
        self.sqlite.close();
        (self.sqlite, self.service) =
            Self::open(self.dir.path(), default_account, &self.clock).await;
    }

    pub(crate) fn handle(&self) -> Handle {
        self.service.handle()
    }

    pub(crate) async fn add(&self, namespace: &str, id: &str, kind: &str, scopes: &[&str]) {
        let draft = Draft {
            id: id.into(),
            kind: kind.into(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            secret: "secret".into(),
            ..Draft::default()
        };
        self.handle().generate(&ns(namespace), draft).await.unwrap();
    }

    pub(crate) async fn login(
        &self,
        namespace: &str,
        id: &str,
        secret: &str,
    ) -> Result<Token, Error> {
        let proof = Proof::of(id.into(), secret.into(), String::new())?;
        self.handle().token(&ns(namespace), proof, None).await
    }

    async fn refresh(&self, namespace: &str, token: &str) -> Result<Token, Error> {
        self.handle()
            .token(&ns(namespace), Proof::Refresh(token.into()), None)
            .await
    }
}

pub(crate) fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

fn text<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

mod accounts;
mod policy;
mod tokens;
