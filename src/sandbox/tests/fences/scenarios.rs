//! What the node of each test does.

mod fewer;
mod lasting;
mod work;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use micro_core::{Fault as _, InstanceId, Kind, Namespace, ServiceName};
use micro_sandbox::{
    Event, Exit, Hello, Limits, Mount, Running, Source, Spec, SpecKind, Supervisor,
};
use tokio::sync::mpsc::UnboundedReceiver;

const BASE: u32 = 1_900_000_000;
const LONG: Duration = Duration::from_secs(10);

pub(crate) fn node() -> ExitCode {
    let dir = PathBuf::from(std::env::var_os("MICRO_TEST_DIR").unwrap());
    let scenario = std::env::var("MICRO_TEST_SCENARIO").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let told = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let tell = std::sync::Arc::clone(&told);
    std::panic::set_hook(Box::new(move |info| {
        *tell.lock().unwrap() = info.to_string();
    }));
    let verdict = runtime.block_on(async {
        let outcome = tokio::spawn(run(scenario, dir.clone())).await;
        match outcome {
            Ok(()) => "ok".to_owned(),
            Err(_) => told.lock().unwrap().clone(),
        }
    });
    fs::write(dir.join("result.new"), verdict).unwrap();
    fs::rename(dir.join("result.new"), dir.join("result")).unwrap();
    runtime.block_on(std::future::pending::<()>());
    ExitCode::SUCCESS
}

async fn run(scenario: String, dir: PathBuf) {
    let (supervisor, hello, events) = Supervisor::connect().await.unwrap();
    supervisor.ready().await.unwrap();
    let state = hello.settings.server.state_dir.clone();
    let node = Node {
        supervisor,
        hello,
        events,
        dir,
        state,
    };
    match scenario.as_str() {
        "view" => node.view().await,
        "refused" => node.refused().await,
        "memory" => node.memory().await,
        "bomb" => node.bomb().await,
        "exits" => node.exits().await,
        "grace" => node.grace().await,
        "logs" => node.logs().await,
        "trees" => node.trees().await,
        "toolchains" => node.toolchains().await,
        "outlive_node" => node.outlive_node().await,
        "leave_running" => node.leave_running().await,
        "leave_stubborn" => node.leave_stubborn().await,
        "find_running" => node.find_running().await,
        "find_ended" => node.find_ended().await,
        "cpu" => node.cpu().await,
        "another_user" => node.another_user().await,
        "idle" => node.idle(),
        "rootless" => node.rootless().await,
        "required" => node.required().await,
        "plain" => node.plain().await,
        other => panic!("no scenario {other}"),
    }
}

struct Node {
    supervisor: Supervisor,
    hello: Hello,
    events: UnboundedReceiver<Event>,
    dir: PathBuf,
    state: PathBuf,
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

fn foo() -> Namespace {
    Namespace::parse("foo").unwrap()
}

fn mount(source: Source, target: &str, writable: bool) -> Mount {
    Mount {
        source,
        target: target.into(),
        writable,
    }
}

impl Node {
    fn spec(&self, name: &str, command: &[&str]) -> Spec {
        Spec {
            id: id(name),
            namespace: foo(),
            service: ServiceName::parse("blog").unwrap(),
            kind: SpecKind::Service,
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            env: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                // How the test finds what is left.
                ("MICRO_TEST_DIR".into(), self.dir.to_str().unwrap().into()),
            ],
            cwd: "/data".into(),
            user: 7,
            mounts: vec![
                mount(Source::Release("probe".into()), "/app", false),
                mount(Source::Data, "/data", true),
            ],
            limits: Limits {
                memory: 64 << 20,
                processes: 32,
                cpu_percent: 0,
                open_files: 256,
            },
            labels: BTreeMap::from([("port".into(), "1".into())]),
        }
    }

    fn shell(&self, name: &str, script: &str) -> Spec {
        self.spec(name, &["/bin/sh", "-c", script])
    }

    /// Runs to the end and is forgotten.
    async fn finish(&mut self, spec: Spec) -> (Exit, String) {
        let name = spec.id.clone();
        let running = self.supervisor.launch(spec).await.unwrap();
        assert!(running.pid > 1 && running.exit.is_none());
        let exit = self.exited(&name).await;
        let list = self.supervisor.list().await.unwrap();
        let kept = list.iter().find(|r| r.spec.id == name).unwrap();
        assert_eq!(kept.exit.as_ref(), Some(&exit));
        self.supervisor.forget(&name).await.unwrap();
        (exit, self.log(name.as_str()))
    }

    async fn exited(&mut self, name: &InstanceId) -> Exit {
        loop {
            let Event::Exited { id, exit } = self.events.recv().await.unwrap();
            if id == *name {
                return exit;
            }
        }
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.state.join(format!("logs/foo/blog/{name}.log"))
    }

    /// The text of a log, without time and origin.
    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name))
            .unwrap()
            .lines()
            .map(|line| line.splitn(3, ' ').nth(2).unwrap().to_owned() + "\n")
            .collect()
    }

    async fn logged(&self, name: &str, text: &str) {
        let until = Instant::now() + LONG;
        while !self.log(name).contains(text) {
            assert!(
                Instant::now() < until,
                "{name} never said {text:?}: {}",
                self.log(name)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn view(mut self) {
        assert_eq!(self.hello.missing, Vec::<String>::new());
        let mut spec = self.spec("view", &["/app/probe", "inside", "view"]);
        spec.env.push(("PORT".into(), "1234".into()));
        let (exit, log) = self.finish(spec).await;
        assert_eq!(exit, Exit::Code(0), "{log}");
        let uid = BASE + 7;
        let env = format!(
            "env=MICRO_TEST_DIR:{},PATH:/usr/bin:/bin,PORT:1234",
            self.dir.display()
        );
        for line in [
            "read /etc/shadow=2",
            "read /root=2",
            "read /home=2",
            "read /work=2",
            "read /sys=2",
            "read /boot=2",
            "read /proc/1/root/etc=2", // init does not even show
            "read /proc/1/environ=2",
            "write /x=30",
            "write /app/x=30",
            "write /usr/x=30",
            "write /etc/x=30",
            "write /proc/sys/kernel/core_pattern=30",
            "write /data/x=done",
            "write /tmp/x=done",
            "write /dev/shm/x=done",
            "write /dev/null=done",
            &format!("Uid={uid} {uid} {uid} {uid}"),
            &format!("Gid={uid} {uid} {uid} {uid}"),
            "Groups=",
            "Pid=2",
            "PPid=1",
            "processes=[2]",
            "NoNewPrivs=1",
            "Seccomp=2",
            "CapInh=0000000000000000",
            "CapPrm=0000000000000000",
            "CapEff=0000000000000000",
            "CapBnd=0000000000000000",
            "CapAmb=0000000000000000",
            &env,
            "fds=3",
            "host=blog",
            "cwd=/data",
            "loose mounts=",
            "nofile=256 256",
            "core=0 0",
            "oom=500",
            "mask=0000000000000000",
        ] {
            assert!(log.lines().any(|l| l == line), "no {line:?} in\n{log}");
        }
        assert!(!log.contains("write /dev/x=done"), "{log}");
        assert!(!log.contains("read /proc/kcore=done"), "{log}");
        let ignored = log
            .lines()
            .find_map(|l| l.strip_prefix("ignored="))
            .unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        assert_eq!(
            ignored & 0x7fff_ffff,
            0,
            "signals are as a new program expects them"
        );
        let data = self.state.join("data/foo/blog");
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::metadata(&data).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (uid, 0o700));
        assert_eq!(fs::metadata(data.join("x")).unwrap().uid(), uid);
    }

    async fn refused(mut self) {
        let spec = self.spec("refused", &["/app/probe", "inside", "refused"]);
        let (exit, log) = self.finish(spec).await;
        assert_eq!(exit, Exit::Code(0), "{log}");
        for (names, outcome) in [
            (
                "unshare user,clone user,clone net,clone mount,setns,mount,umount,open_tree,chroot,\
                 pivot_root,ptrace,process_vm_readv,bpf,perf,keyctl,add_key,userfaultfd,\
                 open_by_handle,init_module,kexec,reboot,syslog,adjtimex,setuid 0,setgroups,\
                 personality,tiocsti,socket raw",
                "1",
            ),
            ("clone3,io_uring,too new", "38"),
            (
                "socket packet,socket alg,socket vsock,socket sock_diag,socket netfilter",
                "97",
            ),
            (
                "socket unix,socket inet,socket inet6,socket route,personality query,thread,process",
                "done",
            ),
        ] {
            for name in names.split(',').map(str::trim) {
                let line = format!("{name}={outcome}");
                assert!(log.lines().any(|l| l == line), "no {line:?} in\n{log}");
            }
        }
        if cfg!(target_arch = "x86_64") {
            assert!(log.contains("x32=38"), "{log}");
            assert!(log.contains("i386=signal 31"), "{log}");
        }
    }

    async fn memory(mut self) {
        let spec = self.spec("memory", &["/app/probe", "inside", "memory"]);
        let (exit, log) = self.finish(spec).await;
        assert_eq!(exit, Exit::OutOfMemory, "{log}");
        assert!(!log.contains("survived"));
        let last = "Killed: it needed more memory than its limit of 64 MiB.\n";
        assert!(log.ends_with(last), "{log}");
        // A child that is killed is told the same way, if the service dies of it.
        let spec = self.shell("memory-2", "/app/probe inside memory >/dev/null");
        assert_eq!(self.finish(spec).await.0, Exit::OutOfMemory);
        let (exit, _) = self.finish(self.shell("memory-3", "kill -9 $$")).await;
        assert_eq!(exit, Exit::Signal(9), "killed, but not for memory");
    }

    async fn bomb(mut self) {
        let spec = self.spec("bomb", &["/app/probe", "inside", "bomb"]);
        let name = spec.id.clone();
        self.supervisor.launch(spec).await.unwrap();
        self.logged("bomb", "full=11").await;
        let begin = Instant::now();
        self.supervisor
            .stop(&name, Duration::from_millis(100))
            .await
            .unwrap();
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(self.exited(&name).await, Exit::Signal(9));
        self.supervisor.forget(&name).await.unwrap();
    }

    async fn exits(mut self) {
        let (exit, _) = self.finish(self.shell("exits-1", "exit 7")).await;
        assert_eq!(exit, Exit::Code(7));
        let (exit, _) = self.finish(self.shell("exits-2", "kill -SEGV $$")).await;
        assert_eq!(exit, Exit::Signal(11));
        let (exit, log) = self
            .finish(self.spec("exits-3", &["sh", "-c", "echo found"]))
            .await;
        assert_eq!((exit, log.as_str()), (Exit::Code(0), "found\n"));
        // What it leaves behind ends with it, and its last words are kept.
        let left = self.shell("exits-4", "(sleep 1000 & ) ; printf last; printf words >&2");
        let (exit, log) = self.finish(left).await;
        assert_eq!(exit, Exit::Code(0));
        assert!(log.contains("last\n") && log.contains("words\n"), "{log}");
        for (command, words) in [
            ("/app/none", "/app/none"),
            ("nonesuch", "looked for in /usr/bin:/bin"),
            ("/data", "may not be executed"),
        ] {
            let error = self
                .supervisor
                .launch(self.spec("exits-5", &[command]))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Precondition);
            assert!(error.to_string().contains(words), "{error}");
        }
        let mut elsewhere = self.shell("exits-6", "true");
        elsewhere.cwd = "/nowhere".into();
        let error = self
            .supervisor
            .launch(elsewhere)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("go to its directory") && error.contains("/nowhere"),
            "{error}"
        );
        let mut gone = self.shell("exits-7", "true");
        gone.mounts[0].source = Source::Release("gone".into());
        let error = self.supervisor.launch(gone).await.unwrap_err().to_string();
        assert!(error.contains("releases/gone"), "{error}");
        let mut bad = self.shell("exits-8", "true");
        bad.mounts[0].source = Source::Host("/etc".into());
        assert_eq!(
            self.supervisor.launch(bad).await.unwrap_err().kind(),
            Kind::Invalid
        );
        assert_eq!(
            self.supervisor.list().await.unwrap(),
            [],
            "failed launches leave nothing"
        );
        let unknown = self.supervisor.stop(&id("none"), LONG).await.unwrap_err();
        assert_eq!(unknown.kind(), Kind::NotFound);
        let twice = self.shell("exits-9", "sleep 1000");
        let name = twice.id.clone();
        self.supervisor.launch(twice.clone()).await.unwrap();
        let error = self.supervisor.launch(twice).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        let error = self.supervisor.forget(&name).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Precondition);
        self.supervisor.stop(&name, LONG).await.unwrap();
        self.supervisor.stop(&name, LONG).await.unwrap();
    }

    async fn grace(mut self) {
        let spec = self.shell(
            "grace-1",
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done",
        );
        let name = spec.id.clone();
        self.supervisor.launch(spec).await.unwrap();
        self.logged("grace-1", "up").await;
        self.supervisor.stop(&name, LONG).await.unwrap();
        assert_eq!(self.exited(&name).await, Exit::Code(3));
        let spec = self.shell(
            "grace-2",
            "trap '' TERM; echo up; while :; do sleep 0.01; done",
        );
        let name = spec.id.clone();
        self.supervisor.launch(spec).await.unwrap();
        self.logged("grace-2", "up").await;
        let begin = Instant::now();
        self.supervisor
            .stop(&name, Duration::from_millis(300))
            .await
            .unwrap();
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_millis(300) && took < Duration::from_secs(3),
            "{took:?}"
        );
        assert_eq!(self.exited(&name).await, Exit::Signal(9));
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}
