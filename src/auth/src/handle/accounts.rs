//! Making, listing and deleting accounts, and changing their secrets.

use micro_core::{Account, AccountId, Namespace};

use super::{Handle, Shared, lock};
use crate::{
    Draft, Error,
    account::{MAX_SECRET, check_secret_length},
    repo::{self, Record},
    secrets,
};

/// The shortest secret of the account that [`Handle::claim`] makes.
const MIN_CLAIM_SECRET: usize = 8;

/// A wish for another secret.
pub struct SecretChange {
    /// The id, or the name, of the account.
    pub id: String,
    /// What it was; `None` when the caller need not know.
    pub old: Option<String>,
    /// What it shall be.
    pub new: String,
}

impl std::fmt::Debug for SecretChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretChange")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Makes an account. Gives it with its secret, which nobody can read again.
    ///
    /// # Errors
    /// `Invalid` when a field is missing, too long or taken; `Exhausted` when there are too many.
    pub async fn generate(
        &self,
        namespace: &Namespace,
        draft: Draft,
    ) -> Result<(Account, String), Error> {
        let namespace = namespace.clone();
        self.hash(move |shared| {
            let (account, secret) = draft.check(&namespace, shared.clock.now())?;
            // Before the costly part; the transaction looks again.
            shared
                .sqlite
                .read_blocking(|c| repo::has_room(c, &account))??;
            let secret = match secret {
                Some(secret) => secret,
                None => secrets::random()?,
            };
            let record = Record::new(account, &secret)?;
            let account = shared.add(record, repo::insert)?;
            tracing::info!(namespace = %account.issuer, account = %account.id, r#type = account.kind, "Account created.");
            Ok((account, secret))
        })
        .await
    }

    /// The accounts of `namespace` by id, without secrets.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list(&self, namespace: &Namespace) -> Result<Vec<Account>, Error> {
        let namespace = namespace.clone();
        Ok(self
            .shared
            .sqlite
            .read(move |c| repo::list(c, &namespace))
            .await?)
    }

    /// Deletes an account. Its tokens are no longer accepted when this returns.
    ///
    /// # Errors
    /// `Invalid` when there is none, or it is the caller's own; `Precondition` when it is the last
    /// administrator of namespace `micro`.
    pub async fn delete(
        &self,
        namespace: &Namespace,
        id: &str,
        caller: Option<&Account>,
    ) -> Result<(), Error> {
        if id.is_empty() {
            return Err(Error::MissingId);
        }
        if caller.is_some_and(|c| c.id.as_str() == id && c.issuer == *namespace) {
            return Err(Error::OwnAccount);
        }
        let id = AccountId::parse(id).map_err(|_| Error::AccountNotFound)?;
        let namespace = namespace.clone();
        self.work(move |shared| {
            let generation = shared.sqlite.write_blocking({
                let (namespace, id) = (namespace.clone(), id.clone());
                move |tx| repo::delete(tx, &namespace, id.as_str())
            })??;
            shared.living.died(&namespace, &id, generation);
            tracing::info!(%namespace, account = %id, "Account deleted.");
            lock(&shared.brake).release(&(namespace, id));
            Ok(())
        })
        .await
    }

    /// Changes the secret of an account and ends its refresh tokens. Access tokens run out by
    /// themselves; they can no longer be exchanged for others.
    ///
    /// # Errors
    /// `Invalid` when the new one is blank, the old one is wrong, or there is no such account;
    /// `Exhausted` after too many wrong ones.
    pub async fn change_secret(
        &self,
        namespace: &Namespace,
        change: SecretChange,
    ) -> Result<(), Error> {
        if change.new.is_empty() {
            return Err(Error::BlankSecret);
        }
        check_secret_length(&change.new)?;
        let namespace = namespace.clone();
        self.hash(move |shared| {
            let record = shared
                .sqlite
                .read_blocking(|c| repo::by_id_or_name(c, &namespace, &change.id))?
                .ok_or(Error::AccountNotFound)?;
            if let Some(old) = &change.old {
                shared.check_secret(&record, old)?;
            }
            let hash = secrets::hash(&change.new)?;
            let turn = shared.sqlite.write_blocking({
                let record = record.clone();
                move |tx| repo::set_secret(tx, &record, &hash)
            })??;
            let id = &record.account.id;
            shared
                .living
                .turned(&namespace, id, record.generation, turn);
            lock(&shared.brake).release(&(namespace.clone(), id.clone()));
            tracing::info!(%namespace, account = %id, "Secret changed.");
            Ok(())
        })
        .await
    }

    /// Makes the first account of the node: an administrator of namespace `micro`. `token` is the
    /// one-time login token of the last start; it is used up by success only.
    ///
    /// # Errors
    /// `Unauthenticated` when the token does not fit; `Invalid` when the id or the secret will not
    /// do; `Precondition` when there is an administrator already.
    pub async fn claim(&self, token: &str, id: &str, secret: &str) -> Result<Account, Error> {
        let digest = secrets::digest(token);
        let draft = Draft {
            id: id.into(),
            scopes: vec!["admin".into()],
            secret: secret.into(),
            ..Draft::default()
        };
        self.hash(move |shared| {
            let now = shared.clock.now();
            if !lock(&shared.entrance)
                .as_ref()
                .is_some_and(|e| e.digest == digest && now < e.until)
            {
                return Err(Error::NotClaimable);
            }
            let (account, secret) = draft.check(&Namespace::operator(), now)?;
            let secret = secret.unwrap_or_default();
            if secret.chars().count() < MIN_CLAIM_SECRET {
                return Err(Error::WeakSecret(MIN_CLAIM_SECRET));
            }
            let account = shared.add(Record::new(account, &secret)?, repo::insert_first)?;
            lock(&shared.entrance).take();
            tracing::info!(account = %account.id, "The node was claimed by its first account.");
            Ok(account)
        })
        .await
    }
}

impl Record {
    /// A new account with its secret hashed.
    pub(crate) fn new(account: Account, secret: &str) -> Result<Self, Error> {
        Ok(Self {
            account,
            hash: secrets::hash(secret)?,
            generation: secrets::number()?,
            turn: 0,
            preset: false,
        })
    }
}

impl Shared {
    fn add(
        &self,
        record: Record,
        insert: fn(&micro_storage::rusqlite::Transaction<'_>, &Record) -> repo::Answer<()>,
    ) -> Result<Account, Error> {
        let record = self
            .sqlite
            .write_blocking(move |tx| Ok(insert(tx, &record)?.map(|()| record)))??;
        let account = record.account;
        self.living
            .born(&account.issuer, &account.id, record.generation, record.turn);
        Ok(account)
    }

    /// Whether `secret` is that of `record`, with the brake on. Costly.
    pub(super) fn check_secret(&self, record: &Record, secret: &str) -> Result<(), Error> {
        let key = (record.account.issuer.clone(), record.account.id.clone());
        if let Some(wait) = lock(&self.brake).wait(&key, self.clock.now()) {
            return Err(Error::Braked {
                seconds: wait.as_millis().div_ceil(1000).try_into().unwrap_or(1),
            });
        }
        if secret.len() <= MAX_SECRET && secrets::matches(secret, &record.hash) {
            lock(&self.brake).release(&key);
            return Ok(());
        }
        tracing::warn!(namespace = %key.0, account = %key.1, "Wrong secret.");
        lock(&self.brake).failed(key, self.clock.now());
        Err(Error::WrongSecret)
    }
}
