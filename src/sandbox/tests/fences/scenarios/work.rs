//! What instances do with what they are given: logs, trees, toolchains, CPU.

use super::*;

impl Node {
    pub(super) async fn logs(mut self) {
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

    pub(super) async fn trees(mut self) {
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

    pub(super) async fn toolchains(mut self) {
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

    pub(super) async fn cpu(mut self) {
        let mut spec = self.spec("cpu", &["/app/probe", "inside", "spin"]);
        spec.limits.cpu_percent = 20;
        let (exit, log) = self.finish(spec).await;
        assert_eq!(exit, Exit::Code(0));
        let used: u64 = log.trim().strip_prefix("ms=").unwrap().parse().unwrap();
        assert!(used < 500, "{used} ms of CPU in a second");
    }
}
