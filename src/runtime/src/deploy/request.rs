//! What is asked for, and the row that becomes of it and of what was there before.

use std::collections::BTreeMap;

use micro_core::{Namespace, Timestamp};

use crate::{
    detect,
    error::Error,
    manifest::is_env_name,
    repo::{Key, Options, Pending, ServiceRow, Status},
};

/// More copies than anyone means.
pub(super) const MAX_INSTANCES: u32 = 64;

/// What a caller asks for, names checked and authorised.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) key: Key,
    /// Empty in an update: as before.
    pub(crate) source: String,
    pub(crate) options: Options,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) owner: String,
    pub(crate) group: String,
    /// Where the caller's uploads are.
    pub(crate) uploader: Namespace,
    /// Whether the caller is the operator.
    pub(crate) operator: bool,
    /// The service must exist; what is left out stays.
    pub(crate) update: bool,
}

impl Request {
    /// The row that a request makes of what is known.
    pub(super) fn merge(
        self,
        known: Option<ServiceRow>,
        now: Timestamp,
    ) -> Result<ServiceRow, Error> {
        let request = self;
        let known = match (request.update, known) {
            (true, None) => return Err(Error::NotFound),
            (true, known) => known,
            (false, _) => None,
        };
        let mut options = request.options;
        let mut metadata = request.metadata;
        let mut source = request.source;
        if let Some(known) = known {
            let old = known.options;
            // An update keeps what it does not name (contract §8.5).
            if options.command.is_empty() {
                options.command = old.command;
            }
            if options.args.is_empty() {
                options.args = old.args;
            }
            if options.env.is_empty() {
                options.env = old.env;
            }
            for (name, value) in old.secrets {
                options.secrets.entry(name).or_insert(value);
            }
            // Another source has its own folders.
            if options.entrypoint.is_empty() && (source.is_empty() || source == known.source) {
                options.entrypoint = old.entrypoint;
            }
            if options.instances == 0 {
                options.instances = old.instances;
            }
            if source.is_empty() {
                source = known.source;
            }
            for (name, value) in known.metadata {
                metadata.entry(name).or_insert(value);
            }
        }
        if source.is_empty() {
            return Err(Error::SourceName {
                source_name: String::new(),
                reason: "it is empty",
            });
        }
        if options.instances > MAX_INSTANCES {
            return Err(Error::Option {
                what: "instances",
                value: options.instances.to_string(),
                reason: format!("at most {MAX_INSTANCES} copies run on one node"),
            });
        }
        for (name, value) in options.env.iter().chain(&options.secrets) {
            if !is_env_name(name) || value.contains('\0') {
                return Err(Error::Option {
                    what: "variable",
                    value: name.clone(),
                    reason: "a name has no = and neither name nor value a zero byte".into(),
                });
            }
        }
        detect::relative(&options.entrypoint)?;
        metadata
            .entry("source".into())
            .or_insert_with(|| source.clone());
        Ok(ServiceRow {
            pending: Some(Pending {
                source: source.clone(),
                uploader: request.uploader,
                operator: request.operator,
            }),
            key: request.key,
            source,
            owner: request.owner,
            group: request.group,
            metadata,
            options,
            status: Status::Pending,
            error: String::new(),
            release: None,
            attempts: 1,
            created: now,
            updated: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use micro_core::{ServiceName, Version};

    use super::*;

    fn request(update: bool) -> Request {
        Request {
            key: Key {
                namespace: Namespace::operator(),
                name: ServiceName::parse("a").unwrap(),
                version: Version::latest(),
            },
            source: "source://a:latest".into(),
            options: Options::default(),
            metadata: BTreeMap::new(),
            owner: "o".into(),
            group: "micro".into(),
            uploader: Namespace::operator(),
            operator: true,
            update,
        }
    }

    #[test]
    fn an_update_keeps_what_it_leaves_out() {
        let mut first = request(false);
        first.options.env.insert("A".into(), "1".into());
        first.options.secrets.insert("S".into(), "old".into());
        first.options.entrypoint = "svc".into();
        first.options.instances = 3;
        first.metadata.insert("source".into(), "svc".into());
        let row = first.merge(None, Timestamp(1)).unwrap();
        let mut second = request(true);
        second.options.secrets.insert("S".into(), "new".into());
        let row = second.merge(Some(row), Timestamp(2)).unwrap();
        assert_eq!(row.options.env["A"], "1");
        assert_eq!(row.options.secrets["S"], "new");
        assert_eq!(row.options.entrypoint, "svc");
        assert_eq!(row.options.instances, 3);
        assert_eq!(row.metadata["source"], "svc");
        let mut third = request(true);
        third.source = String::new();
        let row = third.merge(Some(row), Timestamp(3)).unwrap();
        assert_eq!(row.source, "source://a:latest");
    }

    #[test]
    fn an_update_of_nothing_is_not_found_and_bad_values_are_named() {
        assert!(matches!(
            request(true).merge(None, Timestamp(1)),
            Err(Error::NotFound)
        ));
        let mut bad = request(false);
        bad.options.env.insert("A=B".into(), String::new());
        assert!(bad.merge(None, Timestamp(1)).is_err());
        let mut bad = request(false);
        bad.options.entrypoint = "../x".into();
        assert!(bad.merge(None, Timestamp(1)).is_err());
        let mut bad = request(false);
        bad.options.instances = 1000;
        assert!(bad.merge(None, Timestamp(1)).is_err());
    }
}
