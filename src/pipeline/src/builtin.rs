//! The services that live in this process. They are routes like any other, in every namespace, and
//! are called without a connection.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::uri::PathAndQuery;
use micro_schema::Schema;
use tonic::service::Routes;

use crate::metrics::{Row, Stats};

/// A service in this process.
#[derive(Clone)]
pub struct Builtin(Arc<Parts>);

struct Parts {
    name: String,
    schema: Arc<Schema>,
    routes: Routes,
    paths: HashMap<Box<str>, PathAndQuery>,
    stats: Arc<Stats>,
}

impl Builtin {
    /// The name it is called by.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it offers.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.0.schema
    }

    pub(crate) fn routes(&self) -> Routes {
        self.0.routes.clone()
    }

    pub(crate) fn path(&self, path: &str) -> Option<PathAndQuery> {
        self.0.paths.get(path).cloned()
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.0.stats
    }

    pub(crate) fn row(&self) -> Row<'_> {
        Row {
            namespace: "micro",
            service: &self.0.name,
            stats: &self.0.stats,
            instances: Vec::new(),
        }
    }
}

/// All services in this process.
#[derive(Clone, Default)]
pub struct Builtins(BTreeMap<String, Builtin>);

impl Builtins {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the service `name`, which answers the methods of `schema` through `routes`.
    pub fn add(&mut self, name: &str, schema: Arc<Schema>, routes: Routes) {
        let paths = schema
            .methods()
            .iter()
            .filter_map(|m| Some((m.path.as_str().into(), m.path.parse().ok()?)))
            .collect();
        let parts = Parts {
            name: name.into(),
            schema,
            routes: routes.prepare(),
            paths,
            stats: Arc::default(),
        };
        self.0.insert(name.into(), Builtin(Arc::new(parts)));
    }

    /// The service `name`.
    pub fn get(&self, name: &str) -> Option<&Builtin> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Builtin> {
        self.0.values()
    }
}
