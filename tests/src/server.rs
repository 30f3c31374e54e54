//! A server under test, in a directory and with a home of its own.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{binary, eventually};

/// How long a server may take to serve, on a machine that also builds.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop: drain, services, stores.
const STOP: Duration = Duration::from_secs(40);

/// A running `micro server`. Dropping it stops it and everything it started.
#[derive(Debug)]
pub struct Server {
    dir: Place,
    binary: PathBuf,
    child: Option<Child>,
    addresses: Value,
    flags: Vec<String>,
    settings: String,
    user: Option<u32>,
}

/// Where a server keeps everything: gone afterwards, or kept.
#[derive(Debug)]
enum Place {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}

/// What a test wants different from the defaults.
#[derive(Debug, Default)]
pub struct Builder {
    settings: String,
    flags: Vec<String>,
    binary: Option<PathBuf>,
    directory: Option<PathBuf>,
    user: Option<u32>,
}

impl Builder {
    /// Adds lines to `micro.toml`.
    #[must_use]
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self.settings.push('\n');
        self
    }

    /// Adds a flag of `micro server`.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Uses this `micro` instead of the one under test.
    #[must_use]
    pub fn binary(mut self, path: PathBuf) -> Self {
        self.binary = Some(path);
        self
    }

    /// Runs the server as this user instead of the test's own.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// Keeps everything in this directory instead of a temporary one.
    #[must_use]
    pub fn directory(mut self, path: PathBuf) -> Self {
        self.directory = Some(path);
        self
    }

    /// Starts the server, waits until it is ready and points the CLI at it.
    pub fn start(self) -> Server {
        let mut server = self.unstarted();
        server.launch();
        server
            .cli(["env", "add", "test", &server.address("proxy").to_string()])
            .ok();
        server.cli(["env", "set", "test"]).ok();
        server
    }

    /// Prepares directories and settings without starting anything.
    pub fn unstarted(self) -> Server {
        let dir = match self.directory {
            Some(path) => {
                std::fs::create_dir_all(&path).expect("the directory can be made");
                Place::Kept(path)
            }
            None => Place::Temporary(
                tempfile::Builder::new()
                    .prefix("micro-test-")
                    .tempdir()
                    .expect("a temporary directory"),
            ),
        };
        // Services run under other uids and must be able to pass through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).expect("the directory is ours");
        std::fs::create_dir_all(dir.path().join("home")).expect("a home");
        let mut binary = self.binary.unwrap_or_else(binary);
        if let Some(uid) = self.user {
            // The build directory may be out of that user's reach.
            let copy = dir.path().join("micro");
            std::fs::copy(&binary, &copy).expect("the binary can be copied");
            binary = copy;
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(uid)).expect("we are root");
        }
        Server {
            dir,
            binary,
            child: None,
            addresses: Value::Null,
            flags: self.flags,
            settings: self.settings,
            user: self.user,
        }
    }
}

impl Server {
    /// A server with default settings, reachable and with an empty home.
    pub fn start() -> Self {
        Builder::default().start()
    }

    /// A server with other settings.
    pub fn with() -> Builder {
        Builder::default()
    }

    /// A server that passes the machine's package-registry settings on to build jobs, as its
    /// operator would.
    pub fn for_builds() -> Self {
        Builder::default().settings(&operator_settings()).start()
    }

    /// Logs in as the development account.
    pub fn logged_in(self) -> Self {
        let out = self
            .cli(["login", "--username", "admin", "--password", "micro"])
            .ok();
        assert!(out.contains("Successfully logged in."), "{out}");
        self
    }

    /// The address of a door.
    pub fn address(&self, door: &str) -> SocketAddr {
        self.addresses[door]
            .as_str()
            .and_then(|a| a.parse().ok())
            .unwrap_or_else(|| panic!("no door {door}"))
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The home of the CLI's user.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A directory for the test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("scratch").join(name);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        path
    }

    /// A command in the user's home with a clean `MICRO_*` environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MICRO_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.home())
            .env("NO_COLOR", "1")
            .current_dir(self.home());
        command
    }

    /// The command that starts this server; the caller spawns it.
    pub fn server_command(&self) -> Command {
        let settings = self.dir.path().join("micro.toml");
        std::fs::write(&settings, &self.settings).expect("settings are written");
        let mut command = Command::new(&self.binary);
        command
            .arg("server")
            .arg("--settings")
            .arg(&settings)
            .arg("--state-dir")
            .arg(self.state());
        for door in ["gateway", "proxy", "mesh", "broker", "registry", "admin"] {
            let flag = format!("--{door}-address");
            if !self.flags.contains(&flag) {
                command.args([flag.as_str(), "127.0.0.1:0"]);
            }
        }
        command.args(&self.flags).stdin(Stdio::null());
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid).env("HOME", self.dir.path());
        }
        command
    }

    /// Starts the server again in the same directory (after [`Server::stop`] or a kill).
    pub fn launch(&mut self) {
        let log = || {
            File::options()
                .create(true)
                .append(true)
                .open(self.log_path())
                .expect("a log file")
        };
        let _ = std::fs::remove_file(self.state().join("run/addresses.json"));
        let child = self
            .server_command()
            .stdout(log())
            .stderr(log())
            .spawn()
            .expect("micro server starts");
        self.child = Some(child);
        self.addresses = self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) -> Value {
        let file = self.state().join("run/addresses.json");
        let log = self.log_path();
        let child = self.child.as_mut().expect("started");
        eventually("the server is ready", START, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!(
                    "the server ended with {status}:\n{}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            let addresses: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            let admin = addresses["admin"].as_str()?;
            let url = format!("http://{admin}/ready");
            let args = [
                "--silent",
                "--fail",
                "--max-time",
                "2",
                "--noproxy",
                "*",
                "--output",
                "/dev/null",
                &url,
            ];
            Command::new("curl")
                .args(args)
                .status()
                .ok()?
                .success()
                .then(|| addresses.clone())
        })
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// What the server printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The supervisor's process id.
    pub fn supervisor(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| c.id().cast_signed())
    }

    /// The node's process id: the supervisor's child that runs `__node`.
    pub fn node(&self) -> Option<i32> {
        children(self.supervisor()).into_iter().find(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|c| c.windows(6).any(|w| w == b"__node"))
        })
    }

    /// The binary this server runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Lets the server run on after this process.
    pub fn leave_running(mut self) {
        self.child = None;
    }

    /// Stops the server as systemd would, and returns its exit status.
    pub fn stop(&mut self) -> i32 {
        let Some(mut child) = self.child.take() else {
            return 0;
        };
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        let deadline = std::time::Instant::now() + STOP;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return status.code().unwrap_or(-1);
            }
            if std::time::Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                eprintln!(
                    "the server did not stop within {STOP:?} and was killed:\n{}",
                    self.log()
                );
                return -1;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Processes that were started by this server and are still there.
    pub fn leftovers(&self) -> Vec<String> {
        let marker = self.state().into_os_string().into_encoded_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            for file in ["cmdline", "mountinfo"] {
                let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
                if bytes.windows(marker.len()).any(|w| w == marker.as_slice()) {
                    found.push(format!("{}/{file}", entry.path().display()));
                }
            }
        }
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let code = self.stop();
        if std::thread::panicking() {
            eprintln!("--- server log (exit {code}) ---\n{}", self.log());
        }
    }
}

fn children(parent: i32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// `[build]` for this machine: the registry settings that its tools use, by name and by file.
pub fn operator_settings() -> String {
    const NAMES: &[&str] = &[
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO",
        "GOPROXY",
        "GOSUMDB",
        "GONOSUMDB",
        "GOFLAGS",
        "GOPRIVATE",
        "GOTOOLCHAIN",
    ];
    let wanted = |name: &str| {
        let upper = name.to_uppercase();
        NAMES.contains(&upper.as_str())
            || [
                "PIP_",
                "NPM_CONFIG_",
                "CARGO_REGISTRIES_",
                "CARGO_HTTP_",
                "CARGO_NET_",
            ]
            .iter()
            .any(|p| upper.starts_with(p))
    };
    let mut names: Vec<String> = std::env::vars()
        .map(|(name, _)| name)
        .filter(|name| wanted(name))
        .collect();
    names.sort();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let mut files: Vec<PathBuf> = [
        ".npmrc",
        ".cargo/config.toml",
        ".config/go/env",
        ".config/pip/pip.conf",
        ".pip/pip.conf",
    ]
    .map(|f| home.join(f))
    .into();
    files.extend(["/etc/pip.conf", "/etc/npmrc", "/etc/gitconfig"].map(PathBuf::from));
    files.extend(
        [
            "SSL_CERT_FILE",
            "NODE_EXTRA_CA_CERTS",
            "PIP_CERT",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "PIP_FIND_LINKS",
            "PIP_CONFIG_FILE",
        ]
        .iter()
        .filter_map(|name| std::env::var_os(name).map(PathBuf::from)),
    );
    files.retain(|file| file.is_absolute() && file.exists());
    files.sort();
    files.dedup();
    let (paths, files): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|file| file.is_dir());
    let list = |items: Vec<String>| {
        items
            .iter()
            .map(|item| format!("{item:?}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let shown = |paths: Vec<PathBuf>| {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    let (env, files, paths) = (list(names), list(shown(files)), list(shown(paths)));
    format!("[build]\nenv = [{env}]\nfiles = [{files}]\npaths = [{paths}]\n")
}
