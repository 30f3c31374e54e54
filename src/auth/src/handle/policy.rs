//! Changing and listing rules.

use std::sync::Arc;

use micro_core::Namespace;

use super::{Handle, Shared, lock};
use crate::{
    Error,
    account::bounded,
    repo::{Answer, rules as repo},
    rules::Rule,
};

/// The longest field of a rule, in bytes.
const MAX_FIELD: usize = 200;

impl Handle {
    /// The rules of `namespace` by id, the default one among them while it holds.
    pub fn rules(&self, namespace: &Namespace) -> Vec<Rule> {
        let mut rules = self.shared.rules.load().of(namespace).to_vec();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        rules
    }

    /// Adds a rule; it holds when this returns. One with the id `default` takes the place of the
    /// default rule.
    ///
    /// # Errors
    /// `Invalid` when the id is missing or taken; `Exhausted` when there are too many.
    pub async fn create_rule(&self, namespace: &Namespace, rule: Rule) -> Result<(), Error> {
        if rule.id.is_empty() {
            return Err(Error::RuleIdMissing);
        }
        let resource = &rule.resource;
        for (what, text) in [
            ("id of the rule", &rule.id),
            ("scope of the rule", &rule.scope),
            ("resource of the rule", &resource.kind),
            ("resource of the rule", &resource.name),
            ("resource of the rule", &resource.endpoint),
        ] {
            bounded(what, text.len(), MAX_FIELD)?;
        }
        let namespace = namespace.clone();
        self.work(move |shared| {
            let (ns, id) = (namespace.clone(), rule.id.clone());
            shared.change_rules(move |tx| repo::insert(tx, &ns, &rule))?;
            tracing::info!(%namespace, rule = id, "Rule created.");
            Ok(())
        })
        .await
    }

    /// Deletes a rule, if there is one; it no longer holds when this returns. Deleting `default`
    /// lasts.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_rule(&self, namespace: &Namespace, id: &str) -> Result<(), Error> {
        let (namespace, id) = (namespace.clone(), id.to_owned());
        self.work(move |shared| {
            let (ns, rule) = (namespace.clone(), id.clone());
            shared.change_rules(move |tx| repo::delete(tx, &ns, &rule).map(Ok))?;
            tracing::info!(%namespace, rule = id, "Rule deleted.");
            Ok(())
        })
        .await
    }
}

impl Shared {
    /// Commits a change and then shows it to all doors at once.
    fn change_rules(
        &self,
        change: impl FnOnce(&micro_storage::rusqlite::Transaction<'_>) -> Answer<()> + Send + 'static,
    ) -> Result<(), Error> {
        let _one_at_a_time = lock(&self.changing_rules);
        let book = self.sqlite.write_blocking(move |tx| match change(tx)? {
            Ok(()) => Ok(Ok(repo::load(tx)?)),
            Err(refused) => Ok(Err(refused)),
        })??;
        self.rules.store(Arc::new(book));
        Ok(())
    }
}
