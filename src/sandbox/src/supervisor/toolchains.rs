//! What this machine can build with. Looked for on the server's own `PATH` and in `build.paths`, by
//! asking each tool where it lives.

use std::{
    fs,
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::spec::Toolchain;

/// A tool that takes longer to say its version is of no use.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything there is, in a fixed order.
pub(super) fn discover(more: &[PathBuf]) -> Vec<Toolchain> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = more
        .iter()
        .flat_map(|dir| [dir.join("bin"), dir.clone()])
        .chain(std::env::split_paths(&path))
        .collect();
    dirs.dedup();
    let look = Look { dirs };
    [look.go(), look.rust(), look.node(), look.python()]
        .into_iter()
        .flatten()
        .collect()
}

struct Look {
    dirs: Vec<PathBuf>,
}

impl Look {
    fn go(&self) -> Option<Toolchain> {
        self.find("go", |go| {
            let root = PathBuf::from(ask(go, &["env", "GOROOT"])?);
            let version = ask(go, &["env", "GOVERSION"])?;
            let mut found = at("go", version.trim_start_matches("go"), &root, "go")?;
            // A version named in go.mod is not downloaded behind the operator's back.
            found.env.push(("GOTOOLCHAIN".into(), "local".into()));
            Some(found)
        })
    }

    /// The toolchain itself, not rustup's proxies, which look for a home and the network.
    fn rust(&self) -> Option<Toolchain> {
        self.find("rustc", |rustc| {
            let root = PathBuf::from(ask(rustc, &["--print", "sysroot"])?);
            // rustc 1.90.0 (1159e78c4 2025-09-14)
            let version = ask(rustc, &["--version"])?;
            let version = version.split(' ').nth(1)?.to_owned();
            at("rust", &version, &root, "cargo")
        })
    }

    fn node(&self) -> Option<Toolchain> {
        self.find("node", |node| {
            let real = PathBuf::from(ask(node, &["-p", "process.execPath"])?);
            let version = ask(node, &["--version"])?;
            let root = real.parent()?.parent()?.to_owned();
            at("node", version.trim_start_matches('v'), &root, "node")
        })
    }

    /// The interpreter itself, not a version manager's shim or a virtual environment.
    fn python(&self) -> Option<Toolchain> {
        self.find("python3", |python| {
            let script =
                "import sys; print(sys.base_prefix); print('%d.%d.%d' % sys.version_info[:3])";
            let text = ask(python, &["-I", "-c", script])?;
            let (root, version) = text.split_once('\n')?;
            at("python", version.trim(), Path::new(root.trim()), "python3")
        })
    }

    /// The first `program` that answers.
    fn find(
        &self,
        program: &str,
        describe: impl Fn(&Path) -> Option<Toolchain>,
    ) -> Option<Toolchain> {
        self.dirs
            .iter()
            .map(|dir| dir.join(program))
            .filter(|file| file.is_file())
            .find_map(|file| describe(&file))
    }
}

/// A toolchain below `root`, if its main program is there.
fn at(name: &str, version: &str, root: &Path, program: &str) -> Option<Toolchain> {
    let root = fs::canonicalize(root).ok()?;
    let bin = root.join("bin");
    if !bin.join(program).is_file() {
        return None;
    }
    let visible = root.starts_with("/usr");
    Some(Toolchain {
        name: name.into(),
        version: version.into(),
        bin: vec![bin],
        roots: if visible { Vec::new() } else { vec![root] },
        env: Vec::new(),
    })
}

/// What a tool prints, if it ends well and in time.
fn ask(program: &Path, args: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(args)
        .current_dir("/") // a version file in some directory must not decide
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("GOFLAGS")
        .env_remove("NODE_OPTIONS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let text = child
        .stdout
        .take()
        .and_then(|out| read_until(out, PATIENCE));
    if text.is_none() {
        let _ = child.kill(); // it may have ended just now
    }
    let status = child.wait().ok()?;
    let text = text.filter(|_| status.success())?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn read_until(mut pipe: impl Read + AsFd, patience: Duration) -> Option<String> {
    let until = Instant::now() + patience;
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let ready = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout);
        if ready == Ok(0) || text.len() > 64 << 10 {
            return None;
        }
        match pipe.read(&mut chunk) {
            Ok(0) => return String::from_utf8(text).ok(),
            Ok(read) => text.extend_from_slice(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(path: &Path, script: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_shim_leads_to_the_real_toolchain() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let real = root.join("versions/3.12");
        program(&real.join("bin/python3"), "true");
        program(
            &root.join("shims/python3"),
            &format!("printf '%s\\n3.12.1\\n' {}", real.display()),
        );
        let look = Look {
            dirs: vec![root.join("none"), root.join("shims")],
        };
        let found = look.python().unwrap();
        assert_eq!(found.version, "3.12.1");
        assert_eq!(found.bin, [real.join("bin")]);
        assert_eq!(found.roots, [real]);
        assert!(look.go().is_none());
    }

    #[test]
    fn a_broken_tool_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("go"), "exit 1");
        let look = Look {
            dirs: vec![dir.path().into()],
        };
        assert!(look.go().is_none());
    }
}
