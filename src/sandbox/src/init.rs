//! `micro __init`: the parent of one instance and PID 1 of its pid namespace.
//!
//! It holds what must outlive the server: the log pipes, the exit status and a control socket in the
//! instance's directory. Supervisors come and go; it serves whoever connects. One thread,
//! one poll loop.
//!
//! ```text
//! supervisor ──exec──► init (first)  enters user and pid namespace, forks, ends
//!                        └─► init (PID 1)  listens, logs, waits; a user of its own with CAP_KILL
//!                              └─► service  takes the steps of `isolation.rs`, executes the command
//! ```

mod keeper;
mod log;

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::ExitCode,
};

use nix::{
    fcntl::OFlag,
    sched::CloneFlags,
    sys::{prctl, stat::umask},
    unistd::{
        ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, getgid, getuid, pipe2, setsid,
    },
};

use crate::{
    isolation,
    plan::{Failure, Mode, On as _, Plan, Report, file, line},
    sys, tree,
};
use keeper::Keeper;

/// Runs until the instance has ended. Reads the plan from standard input, reports to standard output.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Reported) => ExitCode::FAILURE,
    }
}

/// The supervisor knows why already.
struct Reported;

/// Where the launch is reported to.
struct Reporter(File);

impl Reporter {
    fn say(&mut self, report: &Report) {
        let _ = self.0.write_all(&line(report)); // a supervisor that is gone needs no report
    }

    fn fail(&mut self, what: &str, why: &Failure) -> Reported {
        self.say(&Report::Failed(format!("could not {what}: {why}")));
        Reported
    }
}

fn run() -> Result<(), Reported> {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    let mut reporter = Reporter(stdout.map_err(|_| Reported)?.into());
    let plan = plan().map_err(|why| reporter.fail("read the plan", &why))?;
    umask(nix::sys::stat::Mode::empty()); // modes are said where files are made
    let _ = setsid(); // fails only for one that leads a session already
    prepare(&plan).map_err(|why| reporter.fail("prepare its directories", &why))?;
    namespaces(&plan).map_err(|why| reporter.fail("enter namespaces of its own", &why))?;
    match sys::fork().on("fork") {
        Err(why) => Err(reporter.fail("start", &why)),
        Ok(ForkResult::Parent { child }) => {
            reporter.say(&Report::Init(child.as_raw()));
            Ok(())
        }
        Ok(ForkResult::Child) => keep(plan, reporter),
    }
}

/// Reads the plan and lets go of everything of the supervisor's.
fn plan() -> Result<Plan, Failure> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).on("the plan")?;
    let plan = serde_json::from_slice(&text)
        .map_err(std::io::Error::from)
        .on("the plan")?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .at("/dev/null")?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .at("/dev/null")?;
    sys::close_on_exec_from(3);
    Ok(plan)
}

/// Makes what the instance owns, below directories that only the server may write to.
fn prepare(plan: &Plan) -> Result<(), Failure> {
    for shown in plan.shown.iter().filter(|shown| shown.owned) {
        let crate::plan::Origin::Below(base, below) = &shown.origin else {
            continue;
        };
        let path = base.join(below);
        let base = tree::open(base).at(base)?;
        if let Some(parent) = below.parent() {
            tree::create_below(&base, parent, 0o711).at(&path)?;
        }
        let top = tree::create_below(&base, below, 0o700).at(&path)?;
        if let Some(owner) = plan.owner {
            tree::own(&top, owner, 0o700).at(&path)?;
        }
    }
    Ok(())
}

/// The user namespace first: it gives the right to make the other.
fn namespaces(plan: &Plan) -> Result<(), Failure> {
    if plan.mode == Mode::Rootless {
        let (uid, gid) = (getuid(), getgid());
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER).on("user namespace")?;
        // The kernel wants supplementary groups frozen before an ordinary user may map its group.
        for (name, text) in [
            ("/proc/self/setgroups", "deny".to_owned()),
            ("/proc/self/uid_map", format!("{uid} {uid} 1")),
            ("/proc/self/gid_map", format!("{gid} {gid} 1")),
        ] {
            std::fs::write(name, text).at(name)?;
        }
    }
    if plan.mode.fenced() {
        nix::sched::unshare(CloneFlags::CLONE_NEWPID).on("pid namespace")?;
    }
    Ok(())
}

/// PID 1 from here on.
fn keep(plan: Plan, mut reporter: Reporter) -> Result<(), Reported> {
    if !plan.mode.fenced() {
        // What the service leaves behind comes back to us instead of getting away.
        prctl::set_child_subreaper(true)
            .on("prctl")
            .map_err(|why| reporter.fail("watch its processes", &why))?;
    }
    let mut keeper = Keeper::open(&plan).map_err(|why| reporter.fail("open its log", &why))?;
    let launch = launch(&plan, &mut keeper).map_err(|why| reporter.fail("start", &why))?;
    let fenced =
        isolation::identity::become_keeper(&plan).map_err(|why| reporter.fail("leave root", &why));
    drop(launch.go);
    let outcome = fenced.and_then(|()| {
        let mut why = String::new();
        let read = File::from(launch.report).read_to_string(&mut why);
        match (read, why.is_empty()) {
            (Ok(_), true) => Ok(()),
            (Ok(_), false) => {
                reporter.say(&Report::Failed(why));
                Err(Reported)
            }
            (Err(error), _) => Err(reporter.fail("start", &Failure::new("its report", error))),
        }
    });
    if let Err(reported) = outcome {
        keeper.abandon(launch.service);
        return Err(reported);
    }
    reporter.say(&Report::Ready);
    drop(reporter);
    drop(plan);
    keeper.run(launch.service);
    Ok(())
}

/// A service on its way to its first instruction.
struct Launch {
    service: Pid,
    /// Closed to let it take the last step: nothing of it runs before init is out of reach.
    go: OwnedFd,
    /// Says why it failed; ends without a word when it runs.
    report: OwnedFd,
}

fn launch(plan: &Plan, keeper: &mut Keeper) -> Result<Launch, Failure> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).on("pipe");
    let (wait, go) = pipe()?;
    let (report, tell) = pipe()?;
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    match sys::fork().on("fork")? {
        ForkResult::Child => {
            drop((go, report, out, err));
            let why = service(plan, wait, out_end, err_end);
            let _ = File::from(tell).write_all(why.as_bytes());
            sys::exit_now(if why.is_empty() { 0 } else { 127 })
        }
        ForkResult::Parent { child } => {
            keeper.listen_to(out, err).on("its output")?;
            Ok(Launch {
                service: child,
                go,
                report,
            })
        }
    }
}

/// In the service's process. Returns only if it cannot become the service, saying why.
fn service(plan: &Plan, wait: OwnedFd, out: OwnedFd, err: OwnedFd) -> String {
    let ready = dup2_stdout(&out)
        .and_then(|()| dup2_stderr(&err))
        .on("its output")
        .and_then(|()| {
            // Nothing sensitive is in this copy of init, and `/proc/self` must be writable for it.
            prctl::set_dumpable(true).on("prctl")
        });
    if let Err(why) = ready {
        return format!("could not start: {why}");
    }
    if let Err((step, why)) = isolation::isolate(plan) {
        return format!("could not {step}: {why}");
    }
    // End of file: init has become who it stays.
    let mut nothing = [0];
    let _ = File::from(wait).read(&mut nothing);
    if plan.rehearse {
        return String::new();
    }
    format!("could not run {}", isolation::execute(plan))
}

/// The directory of an instance as the keeper holds it.
fn open_dir(path: &Path) -> Result<OwnedFd, Failure> {
    tree::open(path).at(path)
}

/// The control socket's path through the directory's descriptor: socket paths may not be long.
fn control_path(dir: &OwnedFd) -> String {
    format!("{}/{}", sys::fd_path(dir), file::CONTROL)
}
