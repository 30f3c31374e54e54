//! A server of its own for each test, and the proof that it leaves nothing behind.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixDatagram,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use micro_core::{Fault as _, Settings};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid},
};

const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(60);

/// Who runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Root,
    Nobody,
    RootWithoutNamespaces,
    NobodyWithoutNamespaces,
}

impl As {
    fn nobody(self) -> bool {
        matches!(self, Self::Nobody | Self::NobodyWithoutNamespaces)
    }
    fn without_namespaces(self) -> bool {
        matches!(
            self,
            Self::RootWithoutNamespaces | Self::NobodyWithoutNamespaces
        )
    }
}

pub(crate) struct Server {
    dir: tempfile::TempDir,
    child: Child,
    who: As,
    notify: UnixDatagram,
    settings: Settings,
}

impl Server {
    pub(crate) fn start(scenario: &str, who: As) -> Self {
        Self::start_with(scenario, who, |_| {})
    }

    pub(crate) fn start_with(scenario: &str, who: As, change: fn(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let release = state.join("releases/probe");
        fs::create_dir_all(&release).unwrap();
        fs::copy("/proc/self/exe", release.join("probe")).unwrap();
        let mut settings =
            micro_core::settings::load(Some(Path::new("/dev/null")), |_| None, &BTreeMap::new())
                .unwrap()
                .settings;
        settings.server.state_dir = state.clone();
        settings.server.user = "nobody-of-this-name".into();
        settings.limits.log_file = micro_core::ByteSize(64 << 10);
        for address in [
            &mut settings.server.gateway_address,
            &mut settings.server.proxy_address,
            &mut settings.server.mesh_address,
            &mut settings.server.broker_address,
            &mut settings.server.registry_address,
            &mut settings.server.admin_address,
        ] {
            address.set_port(0);
        }
        change(&mut settings);
        let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        notify.set_nonblocking(true).unwrap();
        if who.nobody() {
            for path in [
                dir.path().join("notify"),
                state.clone(),
                state.join("releases"),
                release.clone(),
                release.join("probe"),
            ] {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let child = spawn(&dir, scenario, &settings, who);
        Self {
            dir,
            child,
            who,
            notify,
            settings,
        }
    }

    /// Another server on the same state.
    pub(crate) fn again(mut self, scenario: &str) -> Self {
        let _ = fs::remove_file(self.dir.path().join("result"));
        self.child = spawn(&self.dir, scenario, &self.settings, self.who);
        self
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Waits for the scenario, and for its verdict.
    pub(crate) fn passes(&mut self) {
        let result = self.dir.path().join("result");
        let until = Instant::now() + PATIENCE;
        let text = loop {
            if let Ok(text) = fs::read_to_string(&result) {
                break text;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended: {status}");
            }
            if Instant::now() > until {
                self.kill_supervisor();
                panic!("the scenario takes too long");
            }
            pause();
        };
        assert_eq!(text, "ok");
    }

    pub(crate) fn until(&self, what: &str, done: impl Fn(&Path) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(&self.state()) {
            assert!(Instant::now() < until, "waited too long until {what}");
            pause();
        }
    }

    pub(crate) fn signal(&self) {
        kill(self.child_pid(), Signal::SIGTERM).unwrap();
    }

    fn child_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn ends(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the server does not end");
            pause();
        }
    }

    /// Stops it the ordinary way. Returns what it told the service manager.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        self.signal();
        assert_eq!(self.ends(), Some(0));
        self.nothing_is_left();
        let mut said = Vec::new();
        let mut text = [0; 256];
        while let Ok(length) = self.notify.recv(&mut text) {
            said.push(String::from_utf8(text[..length].to_vec()).unwrap());
        }
        said
    }

    pub(crate) fn kill_supervisor(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn nothing_is_left(&self) {
        let root = fs::canonicalize(self.state()).unwrap();
        for group in groups(&root) {
            assert!(!group.exists(), "{} is left", group.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(root.to_str().unwrap()), "mounts are left");
        let instances: Vec<_> = fs::read_dir(root.join("run/instances")).unwrap().collect();
        assert!(instances.is_empty(), "{instances:?} are left");
        let mark = format!("MICRO_TEST_DIR={}", self.dir.path().display());
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file| fs::read(process.path().join(file)).unwrap_or_default();
            let (env, line) = (read("environ"), read("cmdline"));
            let ours = |bytes: &[u8]| bytes.windows(mark.len()).any(|w| w == mark.as_bytes());
            assert!(
                !ours(&env),
                "process {:?} is left: {}",
                process.file_name(),
                String::from_utf8_lossy(&line)
            );
        }
    }

    /// What a second server says that cannot start.
    pub(crate) fn rival(&self, change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let out = command(&self.dir, "idle", &settings, As::Root)
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(1));
        String::from_utf8(out.stderr).unwrap()
    }
}

impl Drop for Server {
    /// A test that failed leaves nothing behind either: the second signal ends everything at once.
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            let _ = kill(self.child_pid(), Signal::SIGTERM);
            pause();
        }
    }
}

fn spawn(dir: &tempfile::TempDir, scenario: &str, settings: &Settings, who: As) -> Child {
    command(dir, scenario, settings, who).spawn().unwrap()
}

fn command(dir: &tempfile::TempDir, scenario: &str, settings: &Settings, who: As) -> Command {
    // Not /proc/self/exe: in the child that would be the test's parent directory's business.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .arg("supervise")
        .env("MICRO_TEST_DIR", dir.path())
        .env("MICRO_TEST_SCENARIO", scenario)
        .env(
            "MICRO_TEST_SETTINGS",
            serde_json::to_string(settings).unwrap(),
        )
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .stdin(Stdio::null());
    if who.without_namespaces() {
        command.env("MICRO_TEST_NO_NAMESPACES", "1");
    }
    // The node writes its verdict there, whoever it is.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    if who.nobody() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// `micro server`, so to speak.
pub(crate) fn supervise() -> ExitCode {
    if std::env::var_os("MICRO_TEST_NO_NAMESPACES").is_some() {
        refuse_namespaces();
    }
    let settings = std::env::var("MICRO_TEST_SETTINGS").unwrap();
    match micro_sandbox::supervisor::run(serde_json::from_str(&settings).unwrap()) {
        Ok(code) => code,
        Err(error) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                eprintln!("{error}");
                cause = error.source();
            }
            eprintln!("hint: {:?}", error.hint());
            ExitCode::FAILURE
        }
    }
}

/// A machine that has no namespaces to offer.
fn refuse_namespaces() {
    use seccompiler::{SeccompAction, SeccompFilter};
    let filter = SeccompFilter::new(
        [(libc::SYS_unshare, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(1),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// Where this server's control groups would be.
fn groups(state: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let hash = state
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (name, path) = (parts.next()?, parts.next()?);
            let base = Path::new("/sys/fs/cgroup").join(name);
            Some(
                base.join(path.trim_start_matches('/'))
                    .join(format!("micro.{hash:016x}")),
            )
        })
        .collect()
}

pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// For a process that must not be root any more.
pub(crate) fn identity() -> (Uid, Gid) {
    (nix::unistd::getuid(), nix::unistd::getgid())
}
