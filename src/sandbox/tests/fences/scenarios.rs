//! What the node of each test does.

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

    async fn logs(mut self) {
        let script = "i=0; while [ $i -lt 4000 ]; do echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); done; echo oops >&2";
        let (exit, _) = self.finish(self.shell("logs", script)).await;
        assert_eq!(exit, Exit::Code(0));
        let mut names: Vec<String> = fs::read_dir(self.state.join("logs/foo/blog"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["logs.log", "logs.log.1", "logs.log.2"]);
        let all: String = ["logs.log.2", "logs.log.1", "logs.log"]
            .iter()
            .map(|name| fs::read_to_string(self.state.join("logs/foo/blog").join(name)).unwrap())
            .collect();
        let mut last = 0;
        for line in all.lines() {
            let mut parts = line.splitn(3, ' ');
            let time: i64 = parts.next().unwrap().parse().unwrap();
            assert!(time > 1_600_000_000_000);
            let origin = parts.next().unwrap();
            let text = parts.next().unwrap();
            match origin {
                "e" => assert_eq!(text, "oops"),
                "o" => {
                    let number: i32 = text.split('-').nth(1).unwrap().parse().unwrap();
                    assert!(last == 0 || number == last + 1, "{last} then {number}");
                    last = number;
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(last, 3999);
        assert!(all.contains(" e oops\n"));
        // A prompt without a newline shows, and does not wait for one.
        let spec = self.shell("logs-2", "printf 'name? '; sleep 1000");
        let name = spec.id.clone();
        self.supervisor.launch(spec).await.unwrap();
        self.logged("logs-2", "name? ").await;
        self.supervisor.stop(&name, LONG).await.unwrap();
    }

    async fn trees(mut self) {
        let scratch = Source::Scratch("job-1".into());
        let mut spec = self.shell(
            "build",
            "set -e; echo made > out; mkdir -p d/e; chmod 000 d; chmod 4755 out; \
             ln -s /etc/shadow link; echo cached > /cache/c; cat /source/probe | wc -c >&2",
        );
        spec.kind = SpecKind::Build;
        spec.cwd = "/build".into();
        spec.mounts = vec![
            mount(Source::Release("probe".into()), "/source", false),
            mount(scratch.clone(), "/build", true),
            mount(Source::Cache("go/mod".into()), "/cache", true),
        ];
        let (exit, log) = self.finish(spec.clone()).await;
        assert_eq!(exit, Exit::Code(0), "{log}");
        let path = self
            .supervisor
            .take_tree(scratch.clone(), &foo())
            .await
            .unwrap();
        assert_eq!(path, self.state.join("builds/job-1"));
        use std::os::unix::fs::MetadataExt as _;
        let out = fs::metadata(path.join("out")).unwrap();
        assert_eq!((out.uid(), out.mode() & 0o7777), (0, 0o755));
        assert_eq!(fs::read_to_string(path.join("out")).unwrap(), "made\n");
        assert_eq!(fs::metadata("/etc/shadow").unwrap().uid(), 0);
        let cached = self.state.join("cache/foo/go/mod/c");
        assert!(cached.exists());

        spec.id = id("build-2");
        spec.command = vec!["/bin/sleep".into(), "1000".into()];
        let name = spec.id.clone();
        self.supervisor.launch(spec).await.unwrap();
        for source in [scratch.clone(), Source::Cache("go".into())] {
            let error = self
                .supervisor
                .remove_tree(source, &foo())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Precondition, "{error}");
        }
        self.supervisor.stop(&name, LONG).await.unwrap();
        for source in [scratch.clone(), Source::Cache("go".into()), scratch.clone()] {
            self.supervisor.remove_tree(source, &foo()).await.unwrap();
        }
        assert!(!path.exists() && !cached.exists());
        let none = self
            .supervisor
            .take_tree(scratch, &foo())
            .await
            .unwrap_err();
        assert_eq!(none.kind(), Kind::NotFound);
        for source in [
            Source::Release("probe".into()),
            Source::Data,
            Source::Scratch("../releases".into()),
            Source::Host("/etc".into()),
        ] {
            let error = self
                .supervisor
                .remove_tree(source, &foo())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
        let (exit, _) = self.finish(self.shell("keep", "echo x > /data/x")).await;
        assert_eq!(exit, Exit::Code(0));
        let service = ServiceName::parse("blog").unwrap();
        self.supervisor.remove_data(&foo(), &service).await.unwrap();
        assert!(!self.state.join("data/foo/blog").exists());
    }

    async fn toolchains(mut self) {
        let list = self.supervisor.toolchains().await.unwrap();
        if list.is_empty() {
            println!("SKIPPED: no toolchain on this machine");
        }
        for toolchain in list {
            let program = match toolchain.name.as_str() {
                "rust" => "rustc --version && cargo --version",
                "go" => "go version",
                "node" => "node --version",
                "python" => "python3 --version",
                other => panic!("{other}"),
            };
            let name = format!("tool-{}", toolchain.name);
            let mut spec = self.shell(&name, program);
            spec.kind = SpecKind::Build;
            spec.limits.memory = 1 << 30;
            spec.limits.processes = 128;
            let path: Vec<String> = toolchain
                .bin
                .iter()
                .map(|bin| bin.to_str().unwrap().to_owned())
                .chain(["/usr/bin:/bin".to_owned()])
                .collect();
            spec.env = vec![
                ("PATH".into(), path.join(":")),
                ("HOME".into(), "/tmp".into()),
                ("MICRO_TEST_DIR".into(), self.dir.to_str().unwrap().into()),
            ];
            spec.env.extend(toolchain.env.clone());
            for root in &toolchain.roots {
                let target = root.to_str().unwrap();
                spec.mounts
                    .push(mount(Source::Host(root.clone()), target, false));
            }
            let (exit, log) = self.finish(spec).await;
            assert_eq!(exit, Exit::Code(0), "{log}");
            assert!(
                log.contains(&toolchain.version),
                "{log} is not {}",
                toolchain.version
            );
        }
    }

    /// Runs twice: the first node kills itself.
    async fn outlive_node(mut self) {
        let mark = self.dir.join("first");
        if !mark.exists() {
            let spec = self.shell("outlive", "while [ ! -e end ]; do sleep 0.01; done; exit 4");
            let running = self.supervisor.launch(spec).await.unwrap();
            fs::write(&mark, serde_json::to_string(&running).unwrap()).unwrap();
            std::process::abort();
        }
        let before: Running = serde_json::from_str(&fs::read_to_string(&mark).unwrap()).unwrap();
        assert_eq!(self.supervisor.list().await.unwrap(), [before]);
        assert_eq!(self.hello.listeners["gateway"].len(), cores());
        fs::write(self.state.join("data/foo/blog/end"), "").unwrap();
        assert_eq!(self.exited(&id("outlive")).await, Exit::Code(4));
    }

    async fn leave_running(self) {
        let spec = self.shell(
            "left",
            "trap 'touch stopped; exit 0' TERM; echo up; while [ ! -e end ]; do sleep 0.01; done; exit 5",
        );
        self.supervisor.launch(spec).await.unwrap();
        self.logged("left", "up").await;
    }

    async fn leave_stubborn(self) {
        let spec = self.shell(
            "stubborn",
            "trap 'touch asked' TERM; echo up; while :; do sleep 0.01; done",
        );
        self.supervisor.launch(spec).await.unwrap();
        self.logged("stubborn", "up").await;
    }

    async fn find_running(mut self) {
        let list = self.supervisor.list().await.unwrap();
        assert_eq!(list.len(), 1);
        let found = &list[0];
        assert!(found.exit.is_none() && found.pid > 1, "{found:?}");
        assert_eq!(
            found.spec,
            self.shell("left", &found.spec.command[2].clone())
        );
        let process = fs::read(format!("/proc/{}/cmdline", found.pid)).unwrap();
        assert!(String::from_utf8_lossy(&process).contains("__init\0left"));
        self.supervisor.stop(&id("left"), LONG).await.unwrap();
        assert_eq!(self.exited(&id("left")).await, Exit::Code(0));
        self.supervisor.forget(&id("left")).await.unwrap();
        assert_eq!(self.supervisor.list().await.unwrap(), []);
    }

    async fn find_ended(self) {
        let until = Instant::now() + LONG;
        loop {
            let list = self.supervisor.list().await.unwrap();
            if let Some(exit) = &list[0].exit {
                assert_eq!(*exit, Exit::Code(5));
                return;
            }
            assert!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn cpu(mut self) {
        let mut spec = self.spec("cpu", &["/app/probe", "inside", "spin"]);
        spec.limits.cpu_percent = 20;
        let (exit, log) = self.finish(spec).await;
        assert_eq!(exit, Exit::Code(0));
        let used: u64 = log.trim().strip_prefix("ms=").unwrap().parse().unwrap();
        assert!(used < 500, "{used} ms of CPU in a second");
    }

    /// The node is not root, and has to get along with what the supervisor left it.
    async fn another_user(mut self) {
        let (uid, gid) = crate::server::identity();
        assert_eq!((uid.as_raw(), gid.as_raw()), (65534, 65534));
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("CapPrm:\t0000000000000000"), "{status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        assert_eq!(self.hello.missing, Vec::<String>::new());
        for name in [
            "micro.db",
            "run/addresses.json",
            "releases/x",
            "sources/x",
            "keys/x",
        ] {
            fs::write(self.state.join(name), "x").unwrap();
        }
        let rename = |from: &str, to: &str| fs::rename(self.state.join(from), self.state.join(to));
        for name in [
            "data",
            "cache",
            "builds",
            "logs",
            "run",
            "run/instances",
            "lock",
        ] {
            assert!(
                rename(name, "mine").is_err(),
                "{name} is not the node's to replace"
            );
        }
        for name in ["data/x", "builds/x", "logs/x", "run/instances/x"] {
            assert!(fs::write(self.state.join(name), "x").is_err(), "{name}");
        }
        let scratch = Source::Scratch("job".into());
        let mut spec = self.shell(
            "job",
            "umask 077; mkdir d; echo made > d/out; chmod 400 d/out",
        );
        spec.kind = SpecKind::Build;
        spec.mounts.push(mount(scratch.clone(), "/build", true));
        spec.cwd = "/build".into();
        let (exit, log) = self.finish(spec).await;
        assert_eq!(exit, Exit::Code(0), "{log}");
        let path = self.supervisor.take_tree(scratch, &foo()).await.unwrap();
        assert_eq!(fs::read_to_string(path.join("d/out")).unwrap(), "made\n");
        fs::rename(path.join("d"), self.state.join("releases/made")).unwrap();
        fs::remove_file(self.log_path("job")).unwrap();
        assert!(
            fs::read_dir(self.state.join("data/foo/blog")).is_err(),
            "data is the service's"
        );
        // A release that leads elsewhere is not followed there.
        std::os::unix::fs::symlink("/root", self.state.join("releases/led")).unwrap();
        let mut spec = self.shell("led", "ls /app");
        spec.mounts[0].source = Source::Release("led".into());
        let error = self.supervisor.launch(spec).await.unwrap_err().to_string();
        assert!(error.contains("releases/led"), "{error}");
    }

    fn idle(self) {
        let settings = &self.hello.settings.server;
        for (door, address) in [
            ("gateway", settings.gateway_address),
            ("admin", settings.admin_address),
        ] {
            assert_ne!(address.port(), 0);
            let sockets = &self.hello.listeners[door];
            assert_eq!(sockets.len(), if door == "admin" { 1 } else { cores() });
            for socket in sockets {
                let listener = std::net::TcpListener::from(socket.try_clone().unwrap());
                assert_eq!(listener.local_addr().unwrap(), address);
            }
            std::net::TcpStream::connect(address).unwrap();
        }
        assert_eq!(self.hello.listeners.len(), 6);
        let text = settings.gateway_address.to_string();
        fs::write(self.state.join("gateway"), text).unwrap();
    }

    async fn rootless(mut self) {
        let (uid, _) = crate::server::identity();
        let missing = self.hello.missing.join("\n");
        if missing.contains("see the files and processes") {
            println!("SKIPPED: no user namespaces for ordinary users here: {missing}");
            return;
        }
        assert!(
            missing.contains("share the user of this server"),
            "{missing}"
        );
        assert!(
            missing.contains("memory of services is not bounded"),
            "{missing}"
        );
        let spec = self.spec("rootless", &["/app/probe", "inside", "view"]);
        let (exit, log) = self.finish(spec).await;
        assert_eq!(exit, Exit::Code(0), "{log}");
        for line in [
            "read /etc/shadow=2",
            "read /root=2",
            "read /proc/1/environ=2",
            "write /x=30",
            "write /app/x=30",
            "write /usr/x=30",
            "write /data/x=done",
            "write /tmp/x=done",
            &format!("Uid={uid} {uid} {uid} {uid}"),
            "Pid=2",
            "processes=[2]",
            "NoNewPrivs=1",
            "Seccomp=2",
            "CapPrm=0000000000000000",
            "CapEff=0000000000000000",
            "CapBnd=0000000000000000",
            "fds=3",
        ] {
            assert!(log.lines().any(|l| l == line), "no {line:?} in\n{log}");
        }
        let spec = self.spec("rootless-2", &["/app/probe", "inside", "refused"]);
        let (_, log) = self.finish(spec).await;
        assert!(
            log.contains("unshare user=1\n") && log.contains("mount=1\n"),
            "{log}"
        );
        let spec = self.spec("rootless-3", &["/app/probe", "inside", "bomb"]);
        let name = spec.id.clone();
        self.supervisor.launch(spec).await.unwrap();
        self.logged("rootless-3", "full=11").await;
        self.supervisor
            .stop(&name, Duration::from_millis(50))
            .await
            .unwrap();
        assert_eq!(self.exited(&name).await, Exit::Signal(9));
        let (exit, _) = self.finish(self.shell("rootless-4", "exit 9")).await;
        assert_eq!(exit, Exit::Code(9));
    }

    async fn required(self) {
        let error = self
            .supervisor
            .launch(self.shell("required", "true"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Precondition);
        let text = error.to_string();
        assert!(
            text.contains("without all its fences") && text.contains("as root"),
            "{text}"
        );
        assert!(error.hint().is_some_and(|h| h.contains("best-effort")));
    }

    async fn plain(mut self) {
        let missing = self.hello.missing.join("\n");
        assert!(
            missing.contains("see the files and processes of this machine"),
            "{missing}"
        );
        let root = crate::server::identity().0.is_root();
        let data = self.state.join("data/foo/blog");
        let mut spec = self.shell("plain", "/app/probe inside view && echo $DIR && pwd");
        spec.env.push(("DIR".into(), "/data/sub".into()));
        let (exit, log) = self.finish(spec).await;
        assert_eq!(exit, Exit::Code(0), "{log}");
        let uid = if root { BASE + 7 } else { 65534 };
        for line in [
            "write /x=13",
            &format!("Uid={uid} {uid} {uid} {uid}"),
            "NoNewPrivs=1",
            "Seccomp=2",
            "CapEff=0000000000000000",
            &format!("{}/sub", data.display()),
            &data.display().to_string(),
        ] {
            assert!(log.lines().any(|l| l == line), "no {line:?} in\n{log}");
        }
        if root {
            assert!(log.contains("read /root=done"), "the host shows: {log}");
        }
        // What goes its own way is found all the same.
        let spec = self.shell(
            "plain-2",
            "(setsid sleep 1000 &) ; (setsid setsid sleep 1000 &) ; exit 6",
        );
        assert_eq!(self.finish(spec).await.0, Exit::Code(6));
        let spec = self.shell(
            "plain-3",
            "trap '' TERM; setsid sleep 1000 & echo up; while :; do sleep 0.01; done",
        );
        let name = spec.id.clone();
        self.supervisor.launch(spec).await.unwrap();
        self.logged("plain-3", "up").await;
        self.supervisor
            .stop(&name, Duration::from_millis(50))
            .await
            .unwrap();
        assert_eq!(self.exited(&name).await, Exit::Signal(9));
        let spec = self.spec("plain-4", &["/app/probe", "inside", "refused"]);
        let (_, log) = self.finish(spec).await;
        assert!(
            log.contains("mount=1\n") && log.contains("io_uring=38\n"),
            "{log}"
        );
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}
