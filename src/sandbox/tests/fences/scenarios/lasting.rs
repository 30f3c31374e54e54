//! Nodes and supervisors that end, and instances that do not.

use super::*;

impl Node {
    /// Runs twice: the first node kills itself.
    pub(super) async fn outlive_node(mut self) {
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

    pub(super) async fn leave_running(self) {
        let spec = self.shell(
            "left",
            "trap 'touch stopped; exit 0' TERM; echo up; while [ ! -e end ]; do sleep 0.01; done; exit 5",
        );
        self.supervisor.launch(spec).await.unwrap();
        self.logged("left", "up").await;
    }

    pub(super) async fn leave_stubborn(self) {
        let spec = self.shell(
            "stubborn",
            "trap 'touch asked' TERM; echo up; while :; do sleep 0.01; done",
        );
        self.supervisor.launch(spec).await.unwrap();
        self.logged("stubborn", "up").await;
    }

    pub(super) async fn find_running(mut self) {
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

    pub(super) async fn find_ended(self) {
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

    pub(super) fn idle(self) {
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
}
