//! One running copy of a release: its environment, its fences, its end.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use micro_core::{AccountId, InstanceId, Settings};
use micro_sandbox::{Limits, Mount, Source, Spec, SpecKind, Toolchain};

use crate::{
    engine::{Engine, Instance},
    error::Error,
    manifest,
    plan::{APP, Tool},
    ports::Doors,
    repo::{Key, Recipe, ReleaseRow},
};

/// How long an instance has to end after SIGTERM.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long an old instance still gets requests that were routed before it was withdrawn.
const LAST_REQUESTS: Duration = Duration::from_millis(250);
/// Open files of one instance.
pub(crate) const OPEN_FILES: u64 = 65_536;
/// Programs of the system.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Labels by which an instance is known again after a restart of the node.
const RELEASE: &str = "release";
const PORT: &str = "port";
const VERSION: &str = "version";

/// What the environment of an instance is made of.
pub(crate) struct Surroundings<'a> {
    pub(crate) key: &'a Key,
    pub(crate) id: &'a InstanceId,
    pub(crate) port: u16,
    pub(crate) doors: &'a Doors,
    pub(crate) account: (&'a AccountId, &'a str),
    pub(crate) public_key: &'a str,
    pub(crate) toolchain: Option<&'a Toolchain>,
}

/// The whole environment (contract §2.3): what the platform says in both families of names, what the
/// language needs, what the author and the deployer want. Nothing of the node's own.
pub(crate) fn environment(recipe: &Recipe, around: &Surroundings<'_>) -> Vec<(String, String)> {
    let mut env = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        env.insert(name.to_owned(), value.to_owned());
    };
    put("HOME", "/data");
    put("USER", around.key.name.as_str());
    put("TMPDIR", "/tmp");
    put("LANG", "C.UTF-8");
    let mut path: Vec<String> = recipe.path.clone();
    if let Some(toolchain) = around.toolchain {
        path.extend(toolchain.bin.iter().map(|b| b.display().to_string()));
        for (name, value) in &toolchain.env {
            put(name, value);
        }
    }
    path.push(SYSTEM_PATH.to_owned());
    put("PATH", &path.join(":"));
    for (name, value) in &recipe.language_env {
        put(name, value);
    }
    let mesh = around.doors.mesh.to_string();
    let (id, secret) = around.account;
    for (name, value) in [
        ("MICRO_SERVICE_NAME", around.key.name.as_str()),
        ("MICRO_SERVICE_VERSION", around.key.version.as_str()),
        ("MICRO_SERVICE_NETWORK", &mesh),
        ("MICRO_PROXY", &mesh),
        ("MICRO_SERVICE_PROFILE", "client"),
        ("MICRO_PROFILE", "service"),
        ("MICRO_CLIENT_ID", id.as_str()),
        ("MICRO_CLIENT_SECRET", secret),
        ("MICRO_AUTH_ID", id.as_str()),
        ("MICRO_AUTH_SECRET", secret),
        ("MICRO_PUBLIC_KEY", around.public_key),
        ("MICRO_AUTH_PUBLIC_KEY", around.public_key),
        ("MICRO_REPORT_USAGE", "false"),
    ] {
        put(name, value);
    }
    for (name, value) in &recipe.env {
        put(name, value);
    }
    // What the platform itself relies on cannot be overridden.
    let port = around.port.to_string();
    put("PORT", &port);
    put("MICRO_SERVICE_ADDRESS", &format!("127.0.0.1:{port}"));
    put("MICRO_INSTANCE_ID", around.id.as_str());
    put("MICRO_NAMESPACE", around.key.namespace.as_str());
    env.into_iter().collect()
}

/// The bounds of an instance: the node's, or less when the author says so.
fn limits(settings: &Settings, own: &manifest::Limits) -> Limits {
    let node = &settings.limits;
    let cpu = match (node.cpu_percent, own.cpu_percent.unwrap_or(0)) {
        (0, own) => own,
        (node, 0) => node,
        (node, own) => node.min(own),
    };
    Limits {
        memory: own.memory.map_or(node.memory.0, |m| m.0.min(node.memory.0)),
        processes: own
            .processes
            .map_or(node.processes, |p| p.min(node.processes)),
        cpu_percent: cpu,
        open_files: OPEN_FILES,
    }
}

/// Mounts that show a toolchain where it expects to be.
pub(crate) fn toolchain_mounts(toolchain: &Toolchain) -> impl Iterator<Item = Mount> + '_ {
    toolchain
        .roots
        .iter()
        .filter(|r| !r.starts_with("/usr"))
        .map(|root| host(root))
}

/// A read-only view of a path of the host, at the same path.
pub(crate) fn host(path: &Path) -> Mount {
    Mount {
        source: Source::Host(path.into()),
        target: path.into(),
        writable: false,
    }
}

/// A port that is free now. The kernel hands them out in turn, so it stays free long enough.
fn free_port() -> Result<u16, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .map_err(Error::NoFreePort)
}

pub(crate) fn instance_id() -> Result<InstanceId, Error> {
    let id = format!("i-{}", ulid::Ulid::generate()).to_lowercase();
    Ok(InstanceId::parse(&id)?)
}

pub(crate) fn is_instance(id: &InstanceId) -> bool {
    id.as_str().starts_with("i-")
}

impl Instance {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The instance behind a record of the supervisor.
    pub(crate) fn from_running(running: &micro_sandbox::Running) -> Option<(Key, Self)> {
        let labels = &running.spec.labels;
        let key = Key {
            namespace: running.spec.namespace.clone(),
            name: running.spec.service.clone(),
            version: labels.get(VERSION)?.parse().ok()?,
        };
        let instance = Self {
            id: running.spec.id.clone(),
            release: labels.get(RELEASE)?.parse().ok()?,
            port: labels.get(PORT)?.parse().ok()?,
            pid: running.pid,
            started: running.started,
        };
        Some((key, instance))
    }
}

/// Stops and forgets an instance unless it is kept: a deployment may be dropped at any await.
pub(crate) struct Launched {
    engine: Arc<Engine>,
    instance: Option<Instance>,
}

impl Launched {
    pub(crate) fn get(&self) -> Option<&Instance> {
        self.instance.as_ref()
    }

    /// The instance serves; somebody else looks after it from now on.
    pub(crate) fn keep(mut self) -> Option<Instance> {
        self.instance.take()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            let engine = Arc::clone(&self.engine);
            self.engine.handle.spawn(async move {
                engine.end(&instance.id, Duration::from_secs(2)).await;
            });
        }
    }
}

impl Engine {
    /// Starts an instance of `release`. It runs when this returns, and may not serve yet.
    pub(crate) async fn launch(self: &Arc<Self>, release: &ReleaseRow) -> Result<Launched, Error> {
        let key = &release.key;
        let recipe = &release.recipe;
        let id = instance_id()?;
        let port = free_port()?;
        let (credentials, asked) = (Arc::clone(&self.credentials), key.clone());
        let account = tokio::task::spawn_blocking(move || {
            let account =
                credentials.service_account(&asked.namespace, &asked.name, &asked.version);
            account.map(|a| (a, credentials.public_key()))
        });
        let ((account, secret), public_key) =
            account.await?.map_err(|source| Error::Credentials {
                service: key.to_string(),
                source,
            })?;
        let toolchain = match &recipe.toolchain {
            None => None,
            Some(name) => Some(self.toolchain(name).await?),
        };
        let env = environment(
            recipe,
            &Surroundings {
                key,
                id: &id,
                port,
                doors: &self.doors,
                account: (&account, &secret),
                public_key: &public_key,
                toolchain: toolchain.as_ref(),
            },
        );
        let mut mounts = vec![
            Mount {
                source: Source::Release(release.digest.clone()),
                target: PathBuf::from(APP),
                writable: false,
            },
            Mount {
                source: Source::Data,
                target: PathBuf::from("/data"),
                writable: true,
            },
        ];
        if let Some(toolchain) = &toolchain {
            mounts.extend(toolchain_mounts(toolchain));
        }
        let user = self
            .repo
            .user(key.namespace.clone(), Some(key.name.clone()))
            .await?;
        let spec = Spec {
            id: id.clone(),
            namespace: key.namespace.clone(),
            service: key.name.clone(),
            kind: SpecKind::Service,
            command: recipe.argv.clone(),
            env,
            cwd: recipe.cwd.clone(),
            user,
            mounts,
            limits: limits(&self.settings, &recipe.limits),
            labels: [
                (RELEASE, release.number.to_string()),
                (PORT, port.to_string()),
                (VERSION, key.version.to_string()),
            ]
            .map(|(k, v)| (k.to_owned(), v))
            .into(),
        };
        self.repo
            .add_instance(id.clone(), key.clone(), release.number, self.clock.now())
            .await?;
        let mut launched = Launched {
            engine: Arc::clone(self),
            instance: Some(Instance {
                id,
                release: release.number,
                port,
                pid: 0,
                started: self.clock.now(),
            }),
        };
        let running = self.supervisor.launch(spec).await?;
        if let Some(instance) = &mut launched.instance {
            instance.pid = running.pid;
        }
        self.prune_logs(key, recipe.instances);
        Ok(launched)
    }

    /// The node's toolchain of this name.
    pub(crate) async fn toolchain(&self, name: &str) -> Result<Toolchain, Error> {
        let found = self
            .supervisor
            .toolchains()
            .await?
            .into_iter()
            .find(|t| t.name == name);
        found.ok_or_else(|| {
            let (language, tool, packages) =
                Tool::named(name).map_or(("this language", "its toolchain", ""), Tool::words);
            Error::NoToolchain {
                language,
                tool,
                packages,
            }
        })
    }

    /// Stops an instance and forgets it.
    pub(crate) async fn end(&self, id: &InstanceId, grace: Duration) {
        if let Err(error) = self.supervisor.stop(id, grace).await {
            tracing::debug!(%error, instance = %id, "An instance was gone before it was stopped.");
        }
        self.clear(id).await;
    }

    /// Takes instances out of service and stops them, without making anybody wait for it.
    pub(crate) fn retire(self: &Arc<Self>, key: &Key, instances: Vec<Instance>) {
        for instance in instances {
            let (engine, key) = (Arc::clone(self), key.clone());
            self.handle.spawn(async move {
                engine.withdraw(&key, &instance.id).await;
                tokio::time::sleep(LAST_REQUESTS).await;
                engine.end(&instance.id, GRACE).await;
            });
        }
    }

    /// Keeps the output of the last few instances and builds. Of a service with many copies that means
    /// those that start now and those they replace.
    fn prune_logs(self: &Arc<Self>, key: &Key, copies: u32) {
        let (engine, key) = (Arc::clone(self), key.clone());
        let keep = usize::try_from(copies).map_or(5, |c| (2 * c).max(5));
        self.handle.spawn_blocking(move || {
            let dir = engine.log_dir(&key);
            let alive: Vec<InstanceId> = engine
                .slots()
                .iter()
                .flat_map(|(_, s)| s.live().instances.clone())
                .map(|i| i.id)
                .collect();
            let running = |id: &InstanceId| alive.contains(id);
            crate::logs::prune(&dir, keep, running, is_instance);
            crate::logs::prune(&dir, 3, running, |id| !is_instance(id));
        });
    }
}

#[cfg(test)]
mod tests {
    use micro_core::{ByteSize, Namespace, ServiceName, Version};

    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            argv: Vec::new(),
            cwd: APP.into(),
            env: BTreeMap::from([
                ("PORT".into(), "1".into()),
                ("MICRO_NAMESPACE".into(), "evil".into()),
                ("MICRO_SERVICE_VERSION".into(), "mine".into()),
                ("GREETING".into(), "hi".into()),
            ]),
            language_env: vec![("NODE_ENV".into(), "production".into())],
            path: vec!["/app/.micro/bin".into()],
            toolchain: None,
            limits: manifest::Limits::default(),
            instances: 1,
            protocol: None,
            descriptor: None,
        }
    }

    fn settings() -> Settings {
        let none = |_: &str| None;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("micro.toml");
        std::fs::write(&file, "[limits]\ncpu_percent = 80\n").unwrap();
        micro_core::settings::load(Some(&file), none, &BTreeMap::new())
            .unwrap()
            .settings
    }

    #[test]
    fn both_families_of_names_are_set_and_the_platforms_own_stay() {
        let key = Key {
            namespace: Namespace::parse("foo").unwrap(),
            name: ServiceName::parse("hello").unwrap(),
            version: Version::latest(),
        };
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let doors = Doors {
            gateway: at(1),
            proxy: at(2),
            mesh: at(3),
            broker: at(4),
            registry: at(5),
            domain: "localhost".into(),
        };
        let account = AccountId::parse("hello-latest").unwrap();
        let env: BTreeMap<String, String> = environment(
            &recipe(),
            &Surroundings {
                key: &key,
                id: &InstanceId::parse("i-1").unwrap(),
                port: 4000,
                doors: &doors,
                account: (&account, "jwt"),
                public_key: "pem",
                toolchain: None,
            },
        )
        .into_iter()
        .collect();
        for (name, value) in [
            ("PORT", "4000"),
            ("MICRO_SERVICE_ADDRESS", "127.0.0.1:4000"),
            ("MICRO_NAMESPACE", "foo"),
            ("MICRO_SERVICE_NAME", "hello"),
            ("MICRO_SERVICE_VERSION", "mine"),
            ("MICRO_PROXY", "127.0.0.1:3"),
            ("MICRO_SERVICE_NETWORK", "127.0.0.1:3"),
            ("MICRO_CLIENT_ID", "hello-latest"),
            ("MICRO_AUTH_ID", "hello-latest"),
            ("MICRO_CLIENT_SECRET", "jwt"),
            ("MICRO_AUTH_SECRET", "jwt"),
            ("MICRO_PUBLIC_KEY", "pem"),
            ("MICRO_SERVICE_PROFILE", "client"),
            ("MICRO_PROFILE", "service"),
            ("MICRO_INSTANCE_ID", "i-1"),
            ("GREETING", "hi"),
            ("NODE_ENV", "production"),
            ("HOME", "/data"),
            ("PATH", "/app/.micro/bin:/usr/local/bin:/usr/bin:/bin"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn an_author_may_ask_for_less_than_the_node_gives() {
        let settings = settings();
        let own = manifest::Limits {
            memory: Some(ByteSize(64 << 20)),
            processes: Some(100_000),
            cpu_percent: Some(200),
        };
        let limits = limits(&settings, &own);
        assert_eq!(limits.memory, 64 << 20);
        assert_eq!(limits.processes, settings.limits.processes);
        assert_eq!(limits.cpu_percent, 80);
    }
}
