//! Servers with less than root, or less than all fences.

use super::*;

impl Node {
    /// The node is not root, and has to get along with what the supervisor left it.
    pub(super) async fn another_user(mut self) {
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

    pub(super) async fn rootless(mut self) {
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

    pub(super) async fn required(self) {
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

    pub(super) async fn plain(mut self) {
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
