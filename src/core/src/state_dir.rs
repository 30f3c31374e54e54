//! Where everything lives. Paths only: who creates and opens them is said beside each.

use std::path::{Path, PathBuf};

use crate::id::{InstanceId, Namespace, ServiceName};

/// The one directory of a node (`/var/lib/micro`, or `~/.micro/server` for an unprivileged run).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The layout below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// Locked while a server runs on this directory (supervisor).
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// SQLite: accounts, rules, services, releases (storage).
    pub fn sqlite(&self) -> PathBuf {
        self.0.join("micro.db")
    }

    /// Rows, topics and blobs of every namespace (storage).
    pub fn storage(&self) -> PathBuf {
        self.0.join("storage")
    }

    /// Mode 0600: `id_rsa` and `id_rsa.pub` that sign tokens (auth), `config` that encrypts secrets
    /// (config).
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Files that exist only while the server runs: addresses, instance sockets.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The doors' addresses as JSON, written once they accept (server).
    pub fn addresses(&self) -> PathBuf {
        self.run().join("addresses.json")
    }

    /// Spec, control socket and exit record of one instance or build job (supervisor).
    pub fn instance(&self, id: &InstanceId) -> PathBuf {
        self.run().join("instances").join(id.as_str())
    }

    /// Uploaded or cloned source trees (runtime).
    pub fn sources(&self) -> PathBuf {
        self.0.join("sources")
    }

    /// Content-addressed, read-only artifacts of releases (runtime).
    pub fn releases(&self) -> PathBuf {
        self.0.join("releases")
    }

    /// Scratch trees of build jobs (supervisor makes them, the job's uid owns them).
    pub fn builds(&self) -> PathBuf {
        self.0.join("builds")
    }

    /// Caches of toolchains, one per namespace.
    pub fn cache(&self, namespace: &Namespace) -> PathBuf {
        self.0.join("cache").join(namespace.as_str())
    }

    /// The one writable directory of a service.
    pub fn data(&self, namespace: &Namespace, service: &ServiceName) -> PathBuf {
        self.0
            .join("data")
            .join(namespace.as_str())
            .join(service.as_str())
    }

    /// Captured output of a service's instances, size-rotated (written by each instance's init).
    pub fn logs(&self, namespace: &Namespace, service: &ServiceName) -> PathBuf {
        self.0
            .join("logs")
            .join(namespace.as_str())
            .join(service.as_str())
    }
}
