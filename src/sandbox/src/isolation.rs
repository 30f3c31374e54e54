//! How a process becomes a sandboxed service: one list of steps, in order, each one function with one
//! way to fail. It runs in a fork of the instance's init and ends by executing the service.
//!
//! | after step | what holds |
//! |---|---|
//! | join its control groups | memory, processes and CPU are bounded, whatever follows |
//! | enter its root | nothing of the host's files is reachable but what was bound |
//! | become its own user | no file of another service could be opened, even if it were visible |
//! | give up capabilities | nothing privileged can be asked of the kernel |
//! | filter its system calls | most of what needs no privilege cannot be asked either |

pub(crate) mod identity;
mod view;

pub(crate) use view::{GENERATED as GENERATED_ETC, SHOWN as SHOWN_ETC};

use std::{ffi::CString, os::unix::ffi::OsStrExt as _, path::Path};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::{Mode as Bits, umask},
    },
    unistd::{chdir, execve, setsid},
};

use crate::{
    plan::{Failure, Mode, On as _, Plan},
    seccomp, sys,
};

/// One step towards the sandbox.
#[derive(Debug)]
pub(crate) struct Step {
    /// What it does, so that "cannot …" can be put before it.
    pub(crate) name: &'static str,
    /// Whether an instance without namespaces takes it too.
    always: bool,
    run: fn(&Plan) -> Result<(), Failure>,
}

const fn fence(name: &'static str, run: fn(&Plan) -> Result<(), Failure>) -> Step {
    let always = false;
    Step { name, always, run }
}

const fn step(name: &'static str, run: fn(&Plan) -> Result<(), Failure>) -> Step {
    let always = true;
    Step { name, always, run }
}

/// All of them.
pub(crate) const STEPS: &[Step] = &[
    step("take a session of its own", session),
    step("join its control groups", control_groups),
    step("offer itself first when memory runs out", oom_score),
    fence(
        "leave the host's mounts, names and message queues",
        namespaces,
    ),
    fence("keep its mounts to itself", view::privacy),
    fence("mount an empty root", view::root),
    fence("show the system's programs", view::programs),
    fence("write its /etc", view::etc),
    fence("make its /dev", view::devices),
    fence("make its /tmp", view::scratch),
    fence("show what it was given", view::given),
    fence("mount its /proc", view::proc),
    fence("enter its root", view::enter),
    fence("name its host", view::host_name),
    step("bound what it may open and hold", resources),
    step("forget the host's keys", keyring),
    step("give up capabilities for good", identity::bound),
    step("become its own user", identity::become_owner),
    step("give up the capabilities it has", identity::clear),
    step("refuse to gain any", identity::no_new_privileges),
    step("close what it was not given", descriptors),
    step("go to its directory", directory),
    step("filter its system calls", system_calls),
];

/// Takes all steps. On failure the process is of no further use.
pub(crate) fn isolate(plan: &Plan) -> Result<(), (&'static str, Failure)> {
    for step in STEPS {
        if step.always || plan.mode.fenced() {
            (step.run)(plan).map_err(|failure| (step.name, failure))?;
        }
    }
    Ok(())
}

/// Runs the command. Returns only if it cannot.
pub(crate) fn execute(plan: &Plan) -> Failure {
    let text = |s: &str| CString::new(s.as_bytes()).unwrap_or_default();
    let given = Given::of(plan);
    let args: Vec<CString> = plan
        .spec
        .command
        .iter()
        .map(|arg| text(&given.translate(arg)))
        .collect();
    let env: Vec<(String, String)> = plan
        .spec
        .env
        .iter()
        .map(|(name, value)| (name.clone(), given.translate(value)))
        .collect();
    let path = env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or("/usr/local/bin:/usr/bin:/bin", |(_, value)| value.as_str());
    let env: Vec<CString> = env
        .iter()
        .map(|(name, value)| text(&format!("{name}={value}")))
        .collect();
    let program = args.first().cloned().unwrap_or_default();
    let shown = program.to_string_lossy().into_owned();
    let candidates: Vec<CString> = if shown.contains('/') {
        vec![program]
    } else {
        path.split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| text(&format!("{dir}/{shown}")))
            .collect()
    };
    let mut denied = None;
    for candidate in &candidates {
        let Err(error) = execve(candidate, &args, &env);
        let exists = Path::new(std::ffi::OsStr::from_bytes(candidate.to_bytes())).exists();
        match error {
            Errno::ENOENT if exists => {
                return failure(
                    error,
                    format!("{shown} needs an interpreter or loader that is not there"),
                );
            }
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => denied = Some(error),
            Errno::ENOEXEC => {
                return failure(
                    error,
                    format!("{shown} is no program for this machine and has no #! line"),
                );
            }
            other => return failure(other, shown),
        }
    }
    match denied {
        Some(error) => failure(error, format!("{shown} may not be executed")),
        None if shown.contains('/') => failure(Errno::ENOENT, shown),
        None => failure(Errno::ENOENT, format!("{shown}, looked for in {path}")),
    }
}

fn failure(error: Errno, what: String) -> Failure {
    Failure::new(what, error)
}

/// Without a view of its own an instance finds what it was given at other paths than the spec says.
/// This puts the real ones into its command, environment and directory.
struct Given(Vec<(String, String)>);

impl Given {
    fn of(plan: &Plan) -> Self {
        if plan.mode.fenced() {
            return Self(Vec::new());
        }
        let mut pairs: Vec<(String, String)> = plan
            .shown
            .iter()
            .map(|shown| {
                let real = shown.origin.path();
                (
                    shown.target.display().to_string(),
                    real.display().to_string(),
                )
            })
            .filter(|(target, real)| target != real)
            .collect();
        pairs.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Self(pairs)
    }

    fn translate(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        'text: while let Some(next) = rest.chars().next() {
            let starts = before.is_none_or(|c: char| !c.is_alphanumeric() && !"/._-".contains(c));
            for (target, real) in self.0.iter().filter(|_| starts) {
                let Some(after) = rest.strip_prefix(target.as_str()) else {
                    continue;
                };
                if after
                    .chars()
                    .next()
                    .is_none_or(|c| !c.is_alphanumeric() && !"._-".contains(c))
                {
                    out.push_str(real);
                    before = target.chars().last();
                    rest = after;
                    continue 'text;
                }
            }
            out.push(next);
            before = Some(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        }
        out
    }
}

fn session(_: &Plan) -> Result<(), Failure> {
    setsid().map(drop).on("setsid")
}

fn control_groups(plan: &Plan) -> Result<(), Failure> {
    plan.group.join().on("cgroup.procs")
}

/// When memory runs out on the whole machine, services go before the server.
fn oom_score(_: &Plan) -> Result<(), Failure> {
    let file = "/proc/self/oom_score_adj";
    let own: i32 = std::fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    std::fs::write(file, own.max(500).to_string()).at(file)
}

/// The process id namespace was entered by init, being PID 1 of it; the network stays the host's.
fn namespaces(_: &Plan) -> Result<(), Failure> {
    nix::sched::unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .on("unshare")
}

fn resources(plan: &Plan) -> Result<(), Failure> {
    let bounds = &plan.bounds;
    let mut wanted = vec![
        (Resource::RLIMIT_CORE, 0), // a dump would hold secrets
        (Resource::RLIMIT_NOFILE, bounds.open_files),
        (Resource::RLIMIT_MSGQUEUE, 64 << 10),
        (Resource::RLIMIT_SIGPENDING, 1024),
        (Resource::RLIMIT_MEMLOCK, 8 << 20),
        (Resource::RLIMIT_NICE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
    ];
    wanted.extend(bounds.processes.map(|n| (Resource::RLIMIT_NPROC, n)));
    wanted.extend(bounds.data.map(|n| (Resource::RLIMIT_DATA, n)));
    for (resource, value) in wanted {
        let (_, hard) = getrlimit(resource).on(format!("{resource:?}"))?;
        let value = value.min(hard); // only root may raise it
        setrlimit(resource, value, value).on(format!("{resource:?}"))?;
    }
    Ok(())
}

/// Kernels and containers without key rings have none to forget.
fn keyring(_: &Plan) -> Result<(), Failure> {
    match sys::join_new_session_keyring() {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Ok(()),
        other => other.on("keyctl"),
    }
}

fn descriptors(plan: &Plan) -> Result<(), Failure> {
    sys::close_on_exec_from(3);
    umask(Bits::from_bits_truncate(0o027));
    sys::reset_signals();
    if plan.mode == Mode::Plain {
        // Without a pid namespace nothing else ends it when its init is killed.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).on("prctl")?;
    }
    Ok(())
}

fn directory(plan: &Plan) -> Result<(), Failure> {
    let cwd = plan.spec.cwd.display().to_string();
    let cwd = Given::of(plan).translate(&cwd);
    chdir(cwd.as_str()).at(&cwd)
}

/// Last, because hardly anything above would be allowed after.
fn system_calls(plan: &Plan) -> Result<(), Failure> {
    if !plan.filter {
        return Ok(());
    }
    let programs = seccomp::programs(plan.spec.kind)
        .map_err(std::io::Error::other)
        .on("seccomp")?;
    seccomp::install(&programs).on("seccomp")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(name: &str) -> usize {
        STEPS.iter().position(|step| step.name == name).unwrap()
    }

    #[test]
    fn limits_come_first_and_the_filter_last() {
        assert!(
            position("join its control groups")
                < position("leave the host's mounts, names and message queues"),
            "a control group namespace begins at the group it is made in"
        );
        assert!(position("enter its root") < position("become its own user"));
        assert!(position("give up capabilities for good") < position("become its own user"));
        assert!(position("become its own user") < position("give up the capabilities it has"));
        assert_eq!(position("filter its system calls"), STEPS.len() - 1);
    }

    #[test]
    fn paths_are_translated_only_where_they_stand_alone() {
        let given = Given(vec![
            ("/app".into(), "/s/releases/1".into()),
            ("/data".into(), "/s/data/x".into()),
        ]);
        for (text, want) in [
            ("/app", "/s/releases/1"),
            ("/app/bin:/usr/bin", "/s/releases/1/bin:/usr/bin"),
            ("--dir=/data", "--dir=/s/data/x"),
            ("cd /app && ./x", "cd /s/releases/1 && ./x"),
            ("/application", "/application"),
            ("/usr/app", "/usr/app"),
            ("http://host/app", "http://host/app"),
            ("/data-old", "/data-old"),
        ] {
            assert_eq!(given.translate(text), want);
        }
    }
}
