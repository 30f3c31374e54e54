//! What a node may ask for. The node reads bytes from outside and may have been taken over; the
//! supervisor is root. So every field of a spec is checked here again, and only what this file returns
//! is ever mounted, owned or removed.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use micro_core::{Namespace, ServiceName, Settings, StateDir};

use super::host::Users;
use crate::{
    error::Error,
    isolation::{GENERATED_ETC, SHOWN_ETC},
    plan::{Origin, Shown},
    spec::{Mount, Source, Spec, SpecKind},
};

/// Where the sandbox has something of its own.
const RESERVED: &[&str] = &[
    "/usr", "/etc", "/proc", "/dev", "/sys", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
    "/libx32", "/run", "/var/tmp",
];
/// What may have mounts inside, but not over it.
const KEPT: &[&str] = &["/", "/tmp", "/var"];
const MAX_ARGS: usize = 1024;
const MAX_ENV: usize = 1024;
const MAX_MOUNTS: usize = 64;
const MAX_LABELS: usize = 64;
/// Bytes of arguments and environment together, below what the kernel takes.
const MAX_TEXT: usize = 512 << 10;
/// Files up to this size are copied into the sandbox, larger ones are mounted.
const MAX_COPY: u64 = 1 << 20;
const MAX_OPEN_FILES: u64 = 1 << 20;

/// What the checks are made against.
#[derive(Debug)]
pub(super) struct Policy<'a> {
    pub(super) state: &'a StateDir,
    pub(super) settings: &'a Settings,
    pub(super) users: Option<&'a Users>,
    /// Roots of toolchains; `None` before they were looked for.
    pub(super) toolchains: Option<&'a [PathBuf]>,
}

/// What became of a spec.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may run, with this view.
    Fine(Vec<Shown>),
    /// It names a host path that may be a toolchain's: look for those, and ask again.
    AskToolchains,
}

/// A rule that was broken.
type Reason = String;

/// One mount's answer.
enum Seen {
    Shown(Shown),
    /// Below `/usr`, which everyone sees.
    Anyway,
    AskToolchains,
}

impl Policy<'_> {
    /// Checks all of a spec.
    pub(super) fn check(&self, spec: &Spec) -> Result<Verdict, Error> {
        self.verdict(spec).map_err(|reason| Error::Spec {
            id: spec.id.clone(),
            reason,
        })
    }

    fn verdict(&self, spec: &Spec) -> Result<Verdict, Reason> {
        texts(spec)?;
        self.limits(spec)?;
        if let Some(users) = self.users
            && users.owner(spec.user).is_none()
        {
            return Err(format!("there is no user with index {}", spec.user));
        }
        plain(&spec.cwd).map_err(|rule| format!("its directory {} {rule}", spec.cwd.display()))?;
        if spec.mounts.len() > MAX_MOUNTS {
            return Err(format!("it has more than {MAX_MOUNTS} mounts"));
        }
        let mut view: Vec<Shown> = Vec::new();
        let mut ask = false;
        for mount in &spec.mounts {
            match self
                .mount(spec, mount)
                .map_err(|rule| format!("its mount at {} {rule}", mount.target.display()))?
            {
                Seen::Shown(shown) => view.push(shown),
                Seen::Anyway => {}
                Seen::AskToolchains => ask = true,
            }
        }
        if ask {
            return Ok(Verdict::AskToolchains);
        }
        apart(view).map(Verdict::Fine)
    }

    fn limits(&self, spec: &Spec) -> Result<(), Reason> {
        let (limits, settings) = (&spec.limits, self.settings);
        let (memory, processes, section) = match spec.kind {
            SpecKind::Service => (settings.limits.memory, settings.limits.processes, "limits"),
            SpecKind::Build => (settings.build.memory, settings.build.processes, "build"),
        };
        let cpu = match (spec.kind, settings.limits.cpu_percent) {
            (SpecKind::Service, most) if most > 0 => 1..=most,
            _ => 0..=100_000,
        };
        if !(1 << 20..=memory.0).contains(&limits.memory) {
            return Err(format!(
                "its memory of {} bytes is not between 1MiB and {section}.memory ({memory})",
                limits.memory
            ));
        }
        if !(1..=processes).contains(&limits.processes) {
            return Err(format!(
                "its {} processes are not between 1 and {section}.processes ({processes})",
                limits.processes
            ));
        }
        if !cpu.contains(&limits.cpu_percent) {
            return Err(format!(
                "its {} % of CPU are not between {} and {} (limits.cpu_percent)",
                limits.cpu_percent,
                cpu.start(),
                cpu.end()
            ));
        }
        if !(16..=MAX_OPEN_FILES).contains(&limits.open_files) {
            return Err(format!(
                "its {} open files are not between 16 and {MAX_OPEN_FILES}",
                limits.open_files
            ));
        }
        Ok(())
    }

    fn mount(&self, spec: &Spec, mount: &Mount) -> Result<Seen, Reason> {
        plain(&mount.target)?;
        let may_write = matches!(
            mount.source,
            Source::Data | Source::Scratch(_) | Source::Cache(_)
        );
        if mount.writable && !may_write {
            return Err("may not be writable: only data, scratch and cache may".into());
        }
        if let Source::Host(path) = &mount.source {
            return self.host(spec, path, &mount.target);
        }
        free(&mount.target)?;
        let (base, below) = self.place(&mount.source, &spec.namespace, &spec.service)?;
        Ok(Seen::Shown(Shown {
            origin: Origin::Below(base, below),
            target: mount.target.clone(),
            writable: mount.writable,
            owned: may_write,
        }))
    }

    /// Where a typed source lives: a directory of the server's, and plain names below it.
    pub(super) fn place(
        &self,
        source: &Source,
        namespace: &Namespace,
        service: &ServiceName,
    ) -> Result<(PathBuf, PathBuf), Reason> {
        let root = self.state.root();
        Ok(match source {
            Source::Release(name) => (self.state.releases(), below(name)?),
            Source::SourceTree(name) => (self.state.sources(), below(name)?),
            Source::Data => (
                root.join("data"),
                Path::new(namespace.as_str()).join(service.as_str()),
            ),
            Source::Scratch(name) => (self.state.builds(), below(name)?),
            Source::Cache(name) => (
                root.join("cache"),
                Path::new(namespace.as_str()).join(below(name)?),
            ),
            Source::Host(_) => return Err("is a path of the host".into()),
        })
    }

    fn host(&self, spec: &Spec, path: &Path, target: &Path) -> Result<Seen, Reason> {
        plain(path).map_err(|rule| format!("shows {}, which {rule}", path.display()))?;
        let same = path == target;
        let real = fs::canonicalize(path)
            .map_err(|error| format!("shows {}, which is not there: {error}", path.display()))?;
        let shown = |origin| {
            Ok(Seen::Shown(Shown {
                origin,
                target: target.to_owned(),
                writable: false,
                owned: false,
            }))
        };
        let state = self.state.root();
        if real.starts_with(state) || state.starts_with(&real) {
            return Err("would show the state of this server".into());
        }
        if spec.kind == SpecKind::Build && self.is_build_file(&real) {
            let etc = target.strip_prefix("/etc").ok();
            let among = |names: &[&str]| {
                etc.is_some_and(|name| names.iter().any(|own| name.starts_with(own)))
            };
            if same && (real.starts_with("/usr") && target.starts_with("/usr") || among(SHOWN_ETC))
            {
                return Ok(Seen::Anyway);
            }
            if !same || etc.is_none() || among(GENERATED_ETC) {
                free(target)?;
            }
            let small = fs::metadata(&real).is_ok_and(|meta| meta.len() <= MAX_COPY);
            return shown(if small {
                Origin::Copy(real)
            } else {
                Origin::Host(real)
            });
        }
        if same && path.starts_with("/usr") {
            return Ok(Seen::Anyway);
        }
        free(target)?;
        let below = |roots: &[PathBuf]| {
            roots
                .iter()
                .filter_map(|root| fs::canonicalize(root).ok())
                .any(|root| real.starts_with(root))
        };
        if real.starts_with("/usr") || below(&self.settings.build.paths) {
            return shown(Origin::Host(real));
        }
        match self.toolchains {
            None => Ok(Seen::AskToolchains),
            Some(roots) if below(roots) => shown(Origin::Host(real)),
            Some(_) if real.is_dir() && self.settings.build.files.iter().any(|f| f == path) => {
                Err(format!(
                    "shows {}, which is a directory: name it in build.paths instead of build.files",
                    path.display()
                ))
            }
            Some(_) => Err(format!(
                "shows {}, which is in no toolchain and not in build.paths or build.files",
                path.display()
            )),
        }
    }

    fn is_build_file(&self, real: &Path) -> bool {
        real.is_file()
            && self
                .settings
                .build
                .files
                .iter()
                .filter_map(|file| fs::canonicalize(file).ok())
                .any(|file| file == real)
    }
}

fn texts(spec: &Spec) -> Result<(), Reason> {
    let program = spec.command.first().map_or("", String::as_str);
    if program.is_empty() {
        return Err("it has no command".into());
    }
    if spec.command.len() > MAX_ARGS {
        return Err(format!("its command has more than {MAX_ARGS} words"));
    }
    if spec.env.len() > MAX_ENV {
        return Err(format!("it has more than {MAX_ENV} variables"));
    }
    for (name, _) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("{name:?} is no name of a variable"));
        }
    }
    if spec.labels.len() > MAX_LABELS {
        return Err(format!("it has more than {MAX_LABELS} labels"));
    }
    let all = spec
        .command
        .iter()
        .chain(spec.env.iter().flat_map(|(name, value)| [name, value]))
        .chain(spec.labels.iter().flat_map(|(name, value)| [name, value]));
    let mut bytes = 0;
    for text in all {
        if text.contains('\0') {
            return Err("its command, environment or labels contain a zero byte".into());
        }
        bytes += text.len() + 1;
    }
    if bytes > MAX_TEXT {
        return Err(format!(
            "its command, environment and labels have {bytes} bytes, more than {MAX_TEXT}"
        ));
    }
    Ok(())
}

/// Absolute, of plain names only, and not over-long.
fn plain(path: &Path) -> Result<(), Reason> {
    let text = path.to_str().unwrap_or("\0");
    if !text.starts_with('/') || text.len() > 1024 || text.chars().any(char::is_control) {
        return Err("is no absolute path of printable characters".into());
    }
    let names = path.components().skip(1);
    if !names
        .clone()
        .all(|part| matches!(part, Component::Normal(_)))
        || names.count() != text.split('/').filter(|name| !name.is_empty()).count()
    {
        return Err("contains `.` or `..`".into());
    }
    Ok(())
}

/// Not over what the sandbox itself has.
fn free(target: &Path) -> Result<(), Reason> {
    let covered = KEPT.iter().any(|own| target == Path::new(own))
        || RESERVED.iter().any(|own| target.starts_with(own));
    if covered {
        return Err("covers a directory that the sandbox fills itself".into());
    }
    Ok(())
}

/// The segments of a tree's name.
fn below(name: &str) -> Result<PathBuf, Reason> {
    let good = |segment: &str| {
        !segment.is_empty()
            && segment.len() <= 128
            && !segment.starts_with('.')
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
    };
    if name.len() > 512 || !name.split('/').all(good) {
        return Err(format!(
            "names {name:?}: use segments of letters, digits, `.`, `_`, `+` and `-`, none beginning with a dot"
        ));
    }
    Ok(PathBuf::from(name))
}

/// No mount inside another: its mount point would have to be made in a tree that somebody else writes.
/// A toolchain inside an allowed directory is visible through that one.
fn apart(mut view: Vec<Shown>) -> Result<Vec<Shown>, Reason> {
    view.sort_by(|a, b| a.target.cmp(&b.target));
    let mut kept: Vec<Shown> = Vec::new();
    for shown in view {
        let outer = kept
            .iter()
            .find(|outer| shown.target.starts_with(&outer.target));
        let Some(outer) = outer else {
            kept.push(shown);
            continue;
        };
        let through = match (&outer.origin, &shown.origin) {
            (Origin::Host(around), Origin::Host(inner)) => {
                let deeper = shown.target.strip_prefix(&outer.target).ok();
                deeper.is_some_and(|deeper| around.join(deeper) == *inner)
                    || (around == inner && outer.target == shown.target)
            }
            (around, inner) => around == inner && outer.target == shown.target,
        };
        if !through {
            return Err(format!(
                "its mounts at {} and {} overlap",
                outer.target.display(),
                shown.target.display()
            ));
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests;
