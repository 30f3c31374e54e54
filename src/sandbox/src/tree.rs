//! Directory trees that somebody else may write to, handled by a process that may do anything.
//!
//! Every step goes through descriptors and never follows a link, so a tree cannot lead out of itself
//! however it changes meanwhile. Only the base must be trusted, and its parents.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path},
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat, fstatat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, unlinkat},
};

/// Deeper trees are refused, or flattened to be removed: each level holds a descriptor open.
const MAX_DEPTH: usize = 200;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Opens a directory itself, not one that a link points to.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(path, DIRECTORY, Mode::empty())?)
}

/// Opens `below`, a relative path of plain names, under `base`.
pub(crate) fn open_below(base: impl AsFd, below: &Path) -> io::Result<OwnedFd> {
    let mut at = base.as_fd().try_clone_to_owned()?;
    for name in names(below)? {
        at = openat(&at, name, DIRECTORY, Mode::empty())?;
    }
    Ok(at)
}

/// The same, making what is missing with `mode`.
pub(crate) fn create_below(base: impl AsFd, below: &Path, mode: u32) -> io::Result<OwnedFd> {
    let mut at = base.as_fd().try_clone_to_owned()?;
    for name in names(below)? {
        match mkdirat(&at, name, Mode::from_bits_truncate(mode)) {
            Err(Errno::EEXIST) => at = openat(&at, name, DIRECTORY, Mode::empty())?,
            other => {
                other?;
                at = openat(&at, name, DIRECTORY, Mode::empty())?;
                fchmod(&at, Mode::from_bits_truncate(mode))?; // whatever the umask is
            }
        }
    }
    Ok(at)
}

/// Opens a path that has no links on the way, as it was checked before, without reading it.
pub(crate) fn reach(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = nix::fcntl::open("/", flags | OFlag::O_DIRECTORY, Mode::empty())?;
    for name in names(path.strip_prefix("/").unwrap_or(path))? {
        at = openat(&at, name, flags, Mode::empty())?;
        if fstat(&at)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(Errno::ELOOP.into());
        }
    }
    Ok(at)
}

/// Writes a small private file so that it is there whole or not at all. Not synced: what it tells of
/// does not outlive the machine's run either.
pub(crate) fn write_whole(dir: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.new");
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut file = File::from(openat(dir, temporary.as_str(), flags, mode)?);
    file.write_all(bytes)?;
    Ok(renameat(dir, temporary.as_str(), dir, name)?)
}

fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(io::Error::from(Errno::EINVAL)),
        })
        .collect()
}

/// Gives a tree to `owner`, unless its top belongs to it already. `chmod_top` is the top's mode.
pub(crate) fn own(top: impl AsFd, owner: Owner, chmod_top: u32) -> io::Result<()> {
    let stat = fstat(&top)?;
    if (stat.st_uid, stat.st_gid) != (owner.uid, owner.gid) {
        claim(&top, owner)?;
    }
    fchmod(&top, Mode::from_bits_truncate(chmod_top))?;
    Ok(())
}

/// Gives everything in a tree to `owner`, readable and writable for it, without set-uid bits.
pub(crate) fn claim(top: impl AsFd, owner: Owner) -> io::Result<()> {
    let before = fstat(&top)?.st_uid;
    give(top.as_fd().try_clone_to_owned()?, before, owner, 0)
}

/// `before` is who made the tree.
fn give(dir: OwnedFd, before: u32, owner: Owner, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the tree is too deep"));
    }
    let (uid, gid) = (
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    );
    fchown(&dir, uid, gid)?;
    let mode = fstat(&dir)?.st_mode & 0o777 | 0o700;
    fchmod(&dir, Mode::from_bits_truncate(mode))?;
    for (name, kind) in entries(&dir)? {
        if kind == Kind::Directory {
            give(enter(&dir, &name)?, before, owner, depth + 1)?;
            continue;
        }
        let stat = fstatat(&dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if stat.st_nlink > 1 && stat.st_uid != before && stat.st_uid != owner.uid {
            continue; // somebody else's file, linked in here to be given away
        }
        fchownat(
            &dir,
            name.as_c_str(),
            uid,
            gid,
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
        if kind == Kind::File {
            // Opening without following makes sure that the mode of a link's target stays as it is.
            let file = openat(
                &dir,
                name.as_c_str(),
                OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            let stat = fstat(&file)?;
            if stat.st_mode & libc::S_IFMT == libc::S_IFREG {
                let mode = Mode::from_bits_truncate(stat.st_mode & 0o777 | 0o600);
                let path = crate::sys::fd_path(&file);
                fchmodat(
                    nix::fcntl::AT_FDCWD,
                    path.as_str(),
                    mode,
                    FchmodatFlags::FollowSymlink,
                )?;
            }
        }
    }
    Ok(())
}

/// Removes the tree `name` in `parent`. It is no error when there is none.
pub(crate) fn remove(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    let top = match enter(&parent, &name) {
        Ok(top) => top,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if is(&error, Errno::ENOTDIR) || is(&error, Errno::ELOOP) => {
            return Ok(unlinkat(
                parent,
                name.as_c_str(),
                UnlinkatFlags::NoRemoveDir,
            )?);
        }
        Err(error) => return Err(error),
    };
    // What is too deep to hold open all the way is moved up, and removed in the next round.
    let mut moved = 0;
    loop {
        let before = moved;
        empty(&top, &top, 0, &mut moved)?;
        if moved == before {
            break;
        }
    }
    Ok(unlinkat(parent, name.as_c_str(), UnlinkatFlags::RemoveDir)?)
}

fn empty(dir: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> io::Result<()> {
    for (name, kind) in entries(dir)? {
        if kind != Kind::Directory {
            unlinkat(dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            continue;
        }
        if depth >= MAX_DEPTH {
            *moved += 1;
            renameat(dir, name.as_c_str(), top, format!(".deep-{moved}").as_str())?;
            continue;
        }
        empty(&enter(dir, &name)?, top, depth + 1, moved)?;
        unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
    }
    Ok(())
}

/// Opens a directory, also one that its owner, us, may not read.
fn enter(dir: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    match openat(&dir, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            let path = openat(
                &dir,
                name,
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            fchmodat(
                nix::fcntl::AT_FDCWD,
                crate::sys::fd_path(&path).as_str(),
                Mode::S_IRWXU,
                FchmodatFlags::FollowSymlink,
            )?;
            Ok(openat(&dir, name, DIRECTORY, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Other,
}

fn entries(dir: &OwnedFd) -> io::Result<Vec<(CString, Kind)>> {
    let mut found = Vec::new();
    // A descriptor of its own: reading moves the position.
    let mut listing = Dir::openat(dir, ".", DIRECTORY, Mode::empty())?;
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            Some(Type::Directory) => Kind::Directory,
            Some(Type::File) => Kind::File,
            Some(_) => Kind::Other,
            None => {
                let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                match stat.st_mode & libc::S_IFMT {
                    libc::S_IFDIR => Kind::Directory,
                    libc::S_IFREG => Kind::File,
                    _ => Kind::Other,
                }
            }
        };
        found.push((name.to_owned(), kind));
    }
    Ok(found)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn me() -> Owner {
        Owner {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        }
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("outside", dir.path().join("link")).unwrap();
        let base = open(dir.path()).unwrap();
        assert!(open_below(&base, Path::new("link")).is_err());
        assert!(create_below(&base, Path::new("link/x"), 0o755).is_err());
        assert!(open_below(&base, Path::new("../x")).is_err());
        assert!(open_below(&base, Path::new("/etc")).is_err());
        let real = fs::canonicalize(dir.path()).unwrap();
        assert!(reach(&real.join("outside")).is_ok());
        assert!(reach(&real.join("link")).is_err());
        assert!(reach(&real.join("link/x")).is_err());
    }

    #[test]
    fn removing_a_tree_leaves_what_its_links_point_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir_all(at("tree/a/b")).unwrap();
        fs::write(at("kept"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), at("tree/a/up")).unwrap();
        fs::set_permissions(at("tree/a"), fs::Permissions::from_mode(0o000)).unwrap();
        let base = open(dir.path()).unwrap();
        remove(&base, OsStr::new("tree")).unwrap();
        assert!(!at("tree").exists());
        assert!(at("kept").exists());
        remove(&base, OsStr::new("tree")).unwrap();
    }

    #[test]
    fn a_tree_too_deep_to_walk_is_still_removed() {
        let dir = tempfile::tempdir().unwrap();
        let base = open(dir.path()).unwrap();
        let deep: std::path::PathBuf = std::iter::once("tree")
            .chain(std::iter::repeat_n("d", MAX_DEPTH * 2 + 7))
            .collect();
        create_below(&base, &deep, 0o755).unwrap();
        remove(&base, OsStr::new("tree")).unwrap();
        assert!(!dir.path().join("tree").exists());
    }

    /// Needs root.
    #[test]
    fn a_file_of_somebody_else_is_not_given_away_by_a_second_name() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        if me().uid != 0 {
            println!("SKIPPED: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir(at("tree")).unwrap();
        for name in ["secret", "tree/own"] {
            fs::write(at(name), "x").unwrap();
        }
        fs::hard_link(at("secret"), at("tree/secret")).unwrap();
        fs::hard_link(at("tree/own"), at("tree/twice")).unwrap();
        for name in ["tree", "tree/own"] {
            chown(at(name), Some(1_900_000_001), Some(1_900_000_001)).unwrap();
        }
        let (uid, gid) = (65534, 65534);
        claim(open(&at("tree")).unwrap(), Owner { uid, gid }).unwrap();
        assert_eq!(fs::metadata(at("secret")).unwrap().uid(), 0);
        assert_eq!(fs::metadata(at("tree/twice")).unwrap().uid(), uid);
    }

    #[test]
    fn claiming_clears_set_uid_bits_and_spares_link_targets() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir(at("tree")).unwrap();
        for (name, mode) in [
            ("tree/suid", 0o4755),
            ("tree/closed", 0o000),
            ("outside", 0o400),
        ] {
            fs::write(at(name), "x").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("../outside", at("tree/link")).unwrap();
        claim(open(&at("tree")).unwrap(), me()).unwrap();
        let mode = |p: &str| fs::metadata(at(p)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("tree/suid"), 0o755);
        assert_eq!(mode("tree/closed"), 0o600);
        assert_eq!(mode("outside"), 0o400);
    }
}
