//! What the argument of `micro run` means: a folder or program on this machine, a repository, or the
//! short name of a service in a well-known repository.

use std::{
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use micro_core::ServiceName;

use crate::{
    deploy::root,
    error::{Error, Result},
};

/// Where short names are looked for when nothing else is set.
pub(crate) const DEFAULT_BASE: &str = "github.com/micro/services";

/// Where the source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// On this machine.
    Local(Local),
    /// In a repository that the server fetches.
    Remote(Remote),
}

/// A source on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// What to upload.
    pub(crate) root: PathBuf,
    /// The only file to upload, relative to the root; all files if there is none.
    pub(crate) only: Option<PathBuf>,
    /// The folder or program of the service below the root; empty for the root itself.
    pub(crate) entrypoint: String,
    /// What people see as its source.
    pub(crate) shown: String,
    /// What the service should be called, unchecked.
    pub(crate) name: String,
}

/// A source in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// The repository and the folder in it.
    pub(crate) source: String,
    /// Branch, tag or commit.
    pub(crate) reference: Option<String>,
    /// What the service should be called, unchecked.
    pub(crate) name: String,
    /// A login that was written into the address; it belongs into no address that is kept.
    pub(crate) login: Option<String>,
}

/// Reads the argument of `micro run` relative to the folder `cwd`; `None` for a short name.
///
/// # Errors
/// For a path that is not there, and for what can be no source.
pub(crate) fn resolve(text: &str, cwd: &Path) -> Result<Option<Source>> {
    let path = cwd.join(text);
    if !text.is_empty() && path.exists() {
        return local(&path).map(|l| Some(Source::Local(l)));
    }
    if text.starts_with(['/', '.']) || text.is_empty() {
        return Err(Error::failed(format!("there is no {text}"))
            .with_hint("name a folder, an executable file or a repository"));
    }
    remote(text).map(|r| r.map(Source::Remote))
}

fn local(path: &Path) -> Result<Local> {
    let full = std::fs::canonicalize(path).map_err(Error::file("find", path))?;
    let base = |p: &Path| {
        p.file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    if full.is_dir() {
        let root = root::of(&full)?;
        let entrypoint = full
            .strip_prefix(&root)
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default();
        return Ok(Local {
            name: named_in(&full)?.unwrap_or_else(|| base(&full)),
            shown: full.to_string_lossy().into_owned(),
            only: None,
            entrypoint,
            root,
        });
    }
    let program = is_program(&full)?;
    let folder = full.parent().unwrap_or(Path::new("/")).to_path_buf();
    let file = base(&full);
    let stem = full
        .file_stem()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    if program {
        // A program needs nothing beside it.
        return Ok(Local {
            name: file.clone(),
            shown: full.to_string_lossy().into_owned(),
            only: Some(PathBuf::from(&file)),
            entrypoint: file,
            root: folder,
        });
    }
    let script = ["py", "js", "mjs"]
        .iter()
        .any(|e| full.extension().is_some_and(|x| x == *e));
    if !script {
        return Err(
            Error::failed(format!("{} is no program that can be run", path.display()))
                .with_hint("name its folder, or make it executable with chmod +x"),
        );
    }
    let root = root::of(&folder)?;
    let entrypoint = full
        .strip_prefix(&root)
        .map(|p| p.to_string_lossy().into_owned())
        .unwrap_or(file);
    // `main.py` says less about a service than its folder does.
    let name = if matches!(
        stem.as_str(),
        "main" | "app" | "server" | "index" | "__main__"
    ) {
        base(&folder)
    } else {
        stem
    };
    Ok(Local {
        name: named_in(&folder)?.unwrap_or(name),
        shown: full.to_string_lossy().into_owned(),
        only: None,
        entrypoint,
        root,
    })
}

/// The name in the folder's `micro.toml`.
fn named_in(folder: &Path) -> Result<Option<String>> {
    let path = folder.join("micro.toml");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(None);
    };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Error::Damaged {
        path,
        reason: e.to_string(),
    })?;
    Ok(table
        .get("name")
        .and_then(|v| v.as_str())
        .map(str::to_owned))
}

/// An ELF program, or a script that says what runs it.
fn is_program(path: &Path) -> Result<bool> {
    let mut file = std::fs::File::open(path).map_err(Error::file("open", path))?;
    let metadata = file.metadata().map_err(Error::file("read", path))?;
    if !metadata.is_file() {
        return Err(Error::failed(format!(
            "{} is neither a folder nor a file",
            path.display()
        )));
    }
    let mut head = [0u8; 4];
    let read = file.read(&mut head).map_err(Error::file("read", path))?;
    let head = head.get(..read).unwrap_or_default();
    let elf = head == b"\x7fELF";
    let script = head.starts_with(b"#!") && metadata.permissions().mode() & 0o111 != 0;
    Ok(elf || script)
}

/// Reads `host/org/repo/folder@ref` and URLs; `None` for a short name.
///
/// # Errors
/// When the repository is not named in full.
pub(crate) fn remote(text: &str) -> Result<Option<Remote>> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A ref follows an @ in the path; one in front of the host belongs to a login.
    let (path, reference) = match path.split_once('@') {
        Some((path, reference)) => (path, Some(reference).filter(|r| !r.is_empty())),
        None => (path, None),
    };
    let has_domain = host.contains('.') && !host.ends_with('.');
    if scheme.is_none() && !has_domain {
        return Ok(None);
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let enough = match scheme {
        Some("file") => !parts.is_empty(),
        _ => !parts.is_empty() && (host.contains('@') || parts.len() >= 2),
    };
    let Some(last) = parts.last().filter(|_| enough) else {
        return Err(Error::failed(format!("{text} does not name a repository"))
            .with_hint("write it like github.com/org/repo, github.com/org/repo/folder@ref or https://host/org/repo"));
    };
    // `https://user:token@host`: the server keeps addresses, so the login travels apart.
    let (login, host) = match host.rsplit_once('@') {
        Some((login, bare)) if matches!(scheme, Some("https" | "http")) => (Some(login), bare),
        _ => (None, host),
    };
    let prefix = scheme.map_or_else(String::new, |s| format!("{s}://"));
    let slash = if path.is_empty() { "" } else { "/" };
    Ok(Some(Remote {
        source: format!("{prefix}{host}{slash}{}", path.trim_end_matches('/')),
        reference: reference.map(str::to_owned),
        name: last.trim_end_matches(".git").to_owned(),
        login: login.map(str::to_owned),
    }))
}

/// A checked name for a service, and whether it had to be changed.
///
/// # Errors
/// When nothing of the text can be in a name.
pub(crate) fn name_from(text: &str) -> Result<(String, bool)> {
    if ServiceName::parse(text).is_ok() {
        return Ok((text.into(), false));
    }
    let mut name = String::with_capacity(text.len());
    for c in text.chars().take(80) {
        let good = c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let c = if good { c } else { '-' };
        if !(c == '.' && name.ends_with('.')) {
            name.push(c);
        }
    }
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    match ServiceName::parse(name) {
        Ok(_) => Ok((name.into(), true)),
        Err(_) => Err(
            Error::failed(format!("cannot make a service name of {text:?}"))
                .with_hint("choose one with --name"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Option<String>, String) {
        let r = remote(text).unwrap().unwrap();
        (r.source, r.reference, r.name)
    }

    fn expected(
        source: &str,
        reference: Option<&str>,
        name: &str,
    ) -> (String, Option<String>, String) {
        (source.into(), reference.map(Into::into), name.into())
    }

    #[test]
    fn repositories_are_named_as_in_micro() {
        assert_eq!(
            parsed("github.com/micro/services/helloworld"),
            expected("github.com/micro/services/helloworld", None, "helloworld")
        );
        assert_eq!(
            parsed("github.com/org/repo@feature/x"),
            expected("github.com/org/repo", Some("feature/x"), "repo")
        );
        assert_eq!(
            parsed("https://user:token@host.example/org/repo.git@v1"),
            expected("https://host.example/org/repo.git", Some("v1"), "repo")
        );
        assert_eq!(
            parsed("file:///srv/git/hello.git@main"),
            expected("file:///srv/git/hello.git", Some("main"), "hello")
        );
        assert_eq!(remote("helloworld").unwrap(), None);
        assert_eq!(remote("helloworld@v2").unwrap(), None);
        let login = |text| remote(text).unwrap().unwrap().login;
        assert_eq!(login("https://u:t@h.example/a/b").as_deref(), Some("u:t"));
        assert_eq!(login("git@h.example:a/b.git"), None);
        assert!(remote("github.com/org").is_err());
        assert!(remote("https://host").is_err());
    }

    #[test]
    fn names_are_made_fit() {
        for (text, name, changed) in [
            ("hello_world", "hello_world", false),
            ("my service!", "my-service", true),
            ("a..b", "a.b", true),
            ("-x-", "x", true),
        ] {
            assert_eq!(name_from(text).unwrap(), (name.into(), changed), "{text}");
        }
        assert!(name_from("日本").is_err());
    }

    #[test]
    fn a_folder_is_its_own_source() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("hello");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("Procfile"), "web: ./x").unwrap();
        let Some(Source::Local(local)) = resolve("hello", dir.path()).unwrap() else {
            panic!("not local")
        };
        assert_eq!(local.name, "hello");
        assert_eq!((local.entrypoint.as_str(), local.only), ("", None));
        assert_eq!(local.root, folder.canonicalize().unwrap());
        std::fs::write(folder.join("micro.toml"), "name = 'other'").unwrap();
        let Some(Source::Local(local)) = resolve(".", &folder).unwrap() else {
            panic!("not local")
        };
        assert_eq!(local.name, "other");
    }

    #[test]
    fn a_program_is_uploaded_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bin"), b"\x7fELF....").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        std::fs::write(dir.path().join("main.py"), "x").unwrap();
        let Some(Source::Local(local)) = resolve("./bin", dir.path()).unwrap() else {
            panic!("not local")
        };
        assert_eq!(local.only.as_deref(), Some(Path::new("bin")));
        assert_eq!(local.entrypoint, "bin");
        assert!(resolve("notes.txt", dir.path()).is_err());
        let Some(Source::Local(local)) = resolve("main.py", dir.path()).unwrap() else {
            panic!("not local")
        };
        assert_eq!((local.entrypoint.as_str(), local.only), ("main.py", None));
    }

    #[test]
    fn a_path_that_is_not_there_is_no_repository() {
        let error = resolve("./nothing", Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "there is no ./nothing");
        assert_eq!(resolve("nothing", Path::new("/nonexistent")).unwrap(), None);
    }
}
