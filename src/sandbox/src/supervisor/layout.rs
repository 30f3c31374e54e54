//! The state directory: whose it is, and that nobody else has it.
//!
//! | path | owner | mode | why |
//! |---|---|---|---|
//! | `.`, `run` | supervisor | 1771 | the node makes files here, but cannot replace what is not its own |
//! | `data` `cache` `builds` | supervisor | 0711 | what is below belongs to the users of services and builds |
//! | `logs` | supervisor | 0751 | written by inits, read by the node |
//! | `run/instances` | supervisor | 0711 | each instance's own directory is 0700 |
//! | `releases` `sources` | node | 0711 | made by the node, shown to instances |
//! | everything else | node | | databases and keys |

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown},
    path::Path,
};

use micro_core::{Namespace, ServiceName, StateDir};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, fchmod},
    unistd::{Gid, Uid, User, fchown, geteuid},
};

use super::host::Users;
use crate::{error::Error, plan, tree, tree::Owner};

/// The user the node runs as, if it is another than the supervisor.
#[derive(Debug, Clone)]
pub(super) struct NodeUser {
    pub(super) name: String,
    pub(super) owner: Owner,
}

/// The state directory, locked and in order.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) state: StateDir,
    pub(super) node: Option<NodeUser>,
    _lock: Flock<File>,
}

/// The node's user, where there is one and this process may become it.
pub(super) fn node_user(name: &str) -> Option<NodeUser> {
    let user = geteuid()
        .is_root()
        .then(|| User::from_name(name).ok().flatten())
        .flatten()?;
    (!user.uid.is_root()).then(|| NodeUser {
        name: name.into(),
        owner: Owner {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        },
    })
}

impl Layout {
    /// Makes what is missing and takes the lock.
    pub(super) fn open(root: &Path, node: Option<NodeUser>) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(root)
            .map_err(Error::os(format!(
                "make the state directory {}",
                root.display()
            )))?;
        // From here on paths are compared, mounted and shown: one spelling.
        let root = fs::canonicalize(root).map_err(Error::os(format!(
            "find the state directory {}",
            root.display()
        )))?;
        let state = StateDir::new(root);
        if let Some(user) = &node {
            reachable(state.root(), user)?;
        }
        let this = Self {
            _lock: lock(&state)?,
            state,
            node,
        };
        this.arrange()?;
        Ok(this)
    }

    /// Who owns what the node makes.
    pub(super) fn node_owner(&self) -> Owner {
        self.node.as_ref().map_or_else(own, |user| user.owner)
    }

    fn arrange(&self) -> Result<(), Error> {
        let (state, node) = (&self.state, self.node_owner());
        let mine = Owner {
            gid: node.gid,
            ..own()
        };
        let shared = if self.node.is_some() { 0o1771 } else { 0o711 };
        directory(state.root(), mine, shared, true)?;
        directory(&state.run(), mine, shared, false)?;
        directory(&plan::instances(state), mine, 0o711, false)?;
        directory(&state.root().join("data"), mine, 0o711, false)?;
        directory(&state.root().join("cache"), mine, 0o711, false)?;
        directory(&state.builds(), mine, 0o711, false)?;
        directory(&state.root().join("logs"), mine, 0o751, false)?;
        for path in [state.releases(), state.sources()] {
            self.node_directory(&path, 0o711)?;
        }
        for path in [state.keys(), state.storage()] {
            self.node_directory(&path, 0o700)?;
        }
        self.node_files()?;
        forget(&state.addresses())
    }

    /// A directory of the node's, with all that is in it: an earlier node may have been another user.
    fn node_directory(&self, path: &Path, mode: u32) -> Result<(), Error> {
        let make = || -> std::io::Result<()> {
            match DirBuilder::new().mode(mode).create(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error);
                }
                _ => {}
            }
            tree::own(tree::open(path)?, self.node_owner(), mode)
        };
        make().map_err(Error::os(format!("give {} to the node", path.display())))
    }

    /// Databases of a node that ran as somebody else.
    fn node_files(&self) -> Result<(), Error> {
        let Some(user) = &self.node else {
            return Ok(());
        };
        let what = || {
            format!(
                "give the files in {} to the node",
                self.state.root().display()
            )
        };
        for entry in fs::read_dir(self.state.root()).map_err(Error::os(what()))? {
            let entry = entry.map_err(Error::os(what()))?;
            let meta = entry.metadata().map_err(Error::os(what()))?;
            // A second name of a file may be anywhere, and mean anything.
            let plain = meta.is_file() && meta.nlink() == 1 && entry.path() != self.state.lock();
            if plain && meta.uid() == geteuid().as_raw() {
                let (uid, gid) = (Some(user.owner.uid), Some(user.owner.gid));
                chown(entry.path(), uid, gid).map_err(Error::os(what()))?;
            }
        }
        Ok(())
    }

    /// The log directory of a service: written by inits, read and cleaned up by the node.
    pub(super) fn log_dir(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        users: Option<&Users>,
    ) -> Result<std::path::PathBuf, Error> {
        let path = self.state.logs(namespace, service);
        let make = || -> std::io::Result<()> {
            let logs = tree::open(&self.state.root().join("logs"))?;
            tree::create_below(&logs, Path::new(namespace.as_str()), 0o751)?;
            let below = Path::new(namespace.as_str()).join(service.as_str());
            let dir = tree::create_below(&logs, &below, 0o770)?;
            let owner = Owner {
                uid: users.map_or_else(own, Users::keeper).uid,
                gid: self.node_owner().gid,
            };
            // Set-gid: what an init makes here belongs to the node's group. What is there already is
            // given along: whoever moved or restored the state directory may have made it root's.
            tree::own(&dir, owner, 0o2770)
        };
        make().map_err(Error::os(format!(
            "make the log directory {}",
            path.display()
        )))?;
        Ok(path)
    }
}

fn own() -> Owner {
    Owner {
        uid: geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    }
}

/// A directory of the supervisor's. One that exists must have been made by a supervisor: who else owns
/// it could put anything in its place. `adopt` is for the root itself, which a package may have made.
fn directory(path: &Path, owner: Owner, mode: u32, adopt: bool) -> Result<(), Error> {
    let what = || format!("make the directory {}", path.display());
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::os(what())(error));
        }
        _ => {}
    }
    let dir = tree::open(path).map_err(Error::os(what()))?;
    let found = nix::sys::stat::fstat(&dir)
        .map_err(Error::os(what()))?
        .st_uid;
    if found != owner.uid && !(adopt && owner.uid == 0) {
        return Err(Error::Owner {
            path: path.into(),
            owner: found,
            expected: owner.uid,
        });
    }
    fchown(
        &dir,
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    )
    .and_then(|()| fchmod(&dir, Mode::from_bits_truncate(mode)))
    .map_err(Error::os(what()))
}

/// Where the doors of an earlier server were is of no use, and its file may be somebody's whom this
/// node may not replace.
fn forget(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::os(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// The node opens its databases by path, so it must be able to walk there.
fn reachable(root: &Path, user: &NodeUser) -> Result<(), Error> {
    for dir in root.ancestors().skip(1) {
        let meta = fs::metadata(dir).map_err(Error::os(format!("look at {}", dir.display())))?;
        let bit = if meta.uid() == user.owner.uid {
            0o100
        } else if meta.gid() == user.owner.gid {
            0o010
        } else {
            0o001
        };
        if meta.mode() & bit == 0 {
            return Err(Error::Unreachable {
                user: user.name.clone(),
                path: dir.into(),
            });
        }
    }
    Ok(())
}

/// Held until the process ends, however it ends.
fn lock(state: &StateDir) -> Result<Flock<File>, Error> {
    let path = state.lock();
    let what = || format!("lock {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(Error::os(what()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let write = |file: &mut File| {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())
            };
            write(&mut lock).map_err(Error::os(what()))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = match pid.trim() {
                "" => "?".to_owned(),
                pid => pid.to_owned(),
            };
            Err(Error::Locked {
                path: state.root().into(),
                pid,
            })
        }
        Err((_, errno)) => Err(Error::os(what())(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_on_the_same_directory_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Layout::open(dir.path(), None).unwrap();
        let error = Layout::open(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
    }

    #[test]
    fn addresses_of_an_earlier_server_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("addresses.json"), "{}").unwrap();
        let layout = Layout::open(dir.path(), None).unwrap();
        assert!(!layout.state.addresses().exists());
    }

    /// Needs root.
    #[test]
    fn logs_that_became_roots_are_given_back() {
        if !geteuid().is_root() {
            println!("skipped: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let node = NodeUser {
            name: "nobody".into(),
            owner: Owner {
                uid: 65534,
                gid: 65534,
            },
        };
        let layout = Layout {
            _lock: lock(&StateDir::new(dir.path())).unwrap(),
            state: StateDir::new(dir.path()),
            node: Some(node),
        };
        fs::create_dir(dir.path().join("logs")).unwrap();
        let service = ServiceName::parse("blog").unwrap();
        let users = Users::for_tests();
        let make = || layout.log_dir(&Namespace::operator(), &service, Some(&users));
        let log = make().unwrap().join("i-1.log");
        fs::write(&log, "").unwrap();
        for path in [log.parent().unwrap(), &log] {
            chown(path, Some(0), Some(0)).unwrap();
        }
        let kept = make().unwrap();
        for path in [&kept, &log] {
            let meta = fs::metadata(path).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (users.keeper().uid, 65534));
        }
        assert_eq!(fs::metadata(kept).unwrap().mode() & 0o7777, 0o2770);
    }

    #[test]
    fn a_directory_that_was_swapped_for_a_link_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("data")).unwrap();
        assert!(Layout::open(dir.path(), None).is_err());
    }
}
