//! How much of the tree around a service is uploaded: its folder, unless its build reaches out of it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use toml::{Table, Value};

use crate::error::{Error, Result};

/// The folder to upload for the service in `folder` (absolute, without links).
///
/// A Go package needs its module; a build that reaches out of the folder (a Cargo workspace, a
/// dependency by path) needs the repository.
///
/// # Errors
/// When a manifest reaches out and there is no telling how far.
pub(crate) fn of(folder: &Path) -> Result<PathBuf> {
    let mut needed = BTreeSet::new();
    if let Some(module) = go_module(folder) {
        go_needs(&module, &mut needed);
        needed.insert(module);
    }
    cargo_needs(folder, &mut needed);
    text_needs(folder, &mut needed);
    needed.retain(|path| !path.starts_with(folder));
    if needed.is_empty() {
        return Ok(folder.to_path_buf());
    }
    // One Go module above is enough for a Go package; everything else may need what lies around it.
    let top = needed
        .iter()
        .fold(folder.to_path_buf(), |top, path| common(&top, path));
    let is_module = needed.len() == 1 && top.join("go.mod").is_file();
    let root = if is_module {
        top
    } else {
        repository(&top).unwrap_or(top)
    };
    if root.parent().is_none() {
        return Err(Error::failed(format!(
            "{} needs files from all over the disk",
            folder.display()
        ))
        .with_hint("put what it needs below one folder, with a .git at its top"));
    }
    Ok(root)
}

fn common(a: &Path, b: &Path) -> PathBuf {
    a.components()
        .zip(b.components())
        .take_while(|(x, y)| x == y)
        .map(|(x, _)| x)
        .collect()
}

fn repository(folder: &Path) -> Option<PathBuf> {
    folder
        .ancestors()
        .find(|dir| dir.join(".git").exists())
        .map(Path::to_path_buf)
}

/// The nearest ancestor with a `go.mod`, for a folder with Go files.
fn go_module(folder: &Path) -> Option<PathBuf> {
    let has_go = folder.join("go.mod").is_file()
        || fs::read_dir(folder).ok()?.flatten().any(|entry| {
            Path::new(&entry.file_name())
                .extension()
                .is_some_and(|e| e == "go")
        });
    let top = repository(folder);
    has_go
        .then(|| {
            folder
                .ancestors()
                .take_while(|dir| top.as_ref().is_none_or(|top| dir.starts_with(top)))
                .find(|dir| dir.join("go.mod").is_file())
        })?
        .map(Path::to_path_buf)
}

/// Modules that `go.mod` replaces by folders, and the workspace.
fn go_needs(module: &Path, needed: &mut BTreeSet<PathBuf>) {
    let text = fs::read_to_string(module.join("go.mod")).unwrap_or_default();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        if let Some((_, target)) = line.split_once("=>") {
            let target = target.trim();
            if target.starts_with("../") || target == ".." {
                needed.insert(normal(&module.join(target)));
            }
        }
    }
}

/// The workspace and the dependencies by path of a Cargo package, and theirs.
fn cargo_needs(folder: &Path, needed: &mut BTreeSet<PathBuf>) {
    let mut waiting = vec![folder.to_path_buf()];
    let mut seen = BTreeSet::new();
    while let Some(package) = waiting.pop() {
        if !seen.insert(package.clone()) || seen.len() > 500 {
            continue;
        }
        let Some(manifest) = manifest(&package) else {
            continue;
        };
        if package != folder {
            needed.insert(package.clone());
        }
        if let Some(workspace) = workspace_of(&package, &manifest) {
            needed.insert(workspace.clone());
            if let Some(top) = self::manifest(&workspace) {
                paths(&Value::Table(top), &workspace, &mut waiting);
            }
        }
        paths(&Value::Table(manifest), &package, &mut waiting);
    }
}

fn manifest(folder: &Path) -> Option<Table> {
    fs::read_to_string(folder.join("Cargo.toml"))
        .ok()?
        .parse()
        .ok()
}

/// The workspace that Cargo would find for a package.
fn workspace_of(package: &Path, manifest: &Table) -> Option<PathBuf> {
    if manifest.contains_key("workspace") {
        return None;
    }
    let named = manifest
        .get("package")
        .and_then(|p| p.get("workspace"))
        .and_then(Value::as_str);
    if let Some(named) = named {
        return Some(normal(&package.join(named)));
    }
    package.ancestors().skip(1).find_map(|dir| {
        let top = self::manifest(dir)?;
        let workspace = top.get("workspace")?;
        let below = package.strip_prefix(dir).ok()?;
        let listed = |key: &str| {
            workspace
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .any(|pattern| matches(pattern, below, key == "exclude"))
        };
        // Dependencies by path of the workspace are members too, but a package that only such a
        // chain reaches builds without the workspace unless it inherits from it.
        let is_member = !listed("exclude") && (listed("members") || inherits(manifest));
        is_member.then(|| dir.to_path_buf())
    })
}

fn inherits(table: &Table) -> bool {
    table.iter().any(|(key, value)| match value {
        Value::Boolean(true) => key == "workspace",
        Value::Table(inner) => inherits(inner),
        _ => false,
    })
}

/// Every `path = "…"` in a manifest that is a folder with a manifest of its own.
fn paths(value: &Value, base: &Path, out: &mut Vec<PathBuf>) {
    let Value::Table(table) = value else { return };
    for (key, value) in table {
        match value {
            Value::String(path) if key == "path" => {
                let target = normal(&base.join(path));
                if target.join("Cargo.toml").is_file() {
                    out.push(target);
                }
            }
            inner => paths(inner, base, out),
        }
    }
}

/// A pattern of workspace members (`*` and `?` within one name) against a path; an excluded folder
/// excludes what is below it.
fn matches(pattern: &str, path: &Path, or_below: bool) -> bool {
    let pattern: Vec<&str> = pattern
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    let parts: Vec<String> = path
        .components()
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
        .collect();
    let fits = pattern.len() == parts.len() || (or_below && pattern.len() < parts.len());
    fits && pattern
        .iter()
        .zip(&parts)
        .all(|(p, name)| glob(p.as_bytes(), name.as_bytes()))
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(_, tail)| glob(pattern, tail))
        }
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((p, rest)), Some((t, tail))) => p == t && glob(rest, tail),
        _ => false,
    }
}

/// Dependencies by path of Node and Python, as their files write them.
fn text_needs(folder: &Path, needed: &mut BTreeSet<PathBuf>) {
    for (file, marks) in [
        ("package.json", &["\"file:", "\"link:", "\"portal:"][..]),
        (
            "requirements.txt",
            &["-e ", "--editable ", "file:", "@ ", "-r ", "-c ", ""],
        ),
        ("pyproject.toml", &["path = \"", "file:"]),
    ] {
        let Ok(text) = fs::read_to_string(folder.join(file)) else {
            continue;
        };
        for line in text.lines().map(str::trim_start) {
            for mark in marks {
                let Some(target) = line.find(mark).and_then(|at| line.get(at + mark.len()..))
                else {
                    continue;
                };
                if target.starts_with("../") || target.starts_with("..\"") {
                    let end = target
                        .find(|c: char| c == '"' || c.is_whitespace())
                        .unwrap_or(target.len());
                    let target = target.get(..end).unwrap_or_default();
                    needed.insert(normal(&folder.join(target)));
                }
            }
        }
    }
}

/// The path without `.` and `..`, by its text.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let full = dir.path().join(path);
                fs::create_dir_all(full.parent().unwrap()).unwrap();
                fs::write(full, text).unwrap();
            }
            Self(dir)
        }

        /// The root for a folder, relative to the tree.
        fn root(&self, folder: &str) -> String {
            let top = self.0.path().canonicalize().unwrap();
            let root = of(&top.join(folder)).unwrap();
            root.strip_prefix(&top).unwrap().to_str().unwrap().into()
        }
    }

    #[test]
    fn a_folder_that_needs_nothing_else_is_uploaded_alone() {
        let tree = Tree::new(&[
            (".git/HEAD", ""),
            ("Cargo.toml", "[workspace]\nmembers = ['other']"),
            (
                "svc/Cargo.toml",
                "[package]\nname='svc'\n[dependencies]\nsdk={path='sdk'}",
            ),
            ("svc/sdk/Cargo.toml", "[package]\nname='sdk'"),
            ("web/app.py", ""),
            ("web/requirements.txt", "grpcio\n"),
        ]);
        assert_eq!(tree.root("svc"), "svc");
        assert_eq!(tree.root("web"), "web");
    }

    #[test]
    fn a_go_package_takes_its_module() {
        let tree = Tree::new(&[
            (".git/HEAD", ""),
            ("mod/go.mod", "module x\n"),
            ("mod/svc/main.go", ""),
            ("far/go.mod", "module y\nreplace a => ../mod // local\n"),
            ("far/main.go", ""),
            ("script/main.py", ""),
        ]);
        assert_eq!(tree.root("mod/svc"), "mod");
        assert_eq!(tree.root("mod"), "mod");
        assert_eq!(tree.root("far"), "");
        assert_eq!(tree.root("script"), "script");
    }

    #[test]
    fn a_cargo_package_that_reaches_out_takes_the_repository() {
        let tree = Tree::new(&[
            (".git/HEAD", ""),
            (
                "rust/Cargo.toml",
                "[workspace]\nmembers=['src/*']\nexclude=['src/not']",
            ),
            ("rust/src/a/Cargo.toml", "[package]\nname='a'"),
            ("rust/src/not/Cargo.toml", "[package]\nname='not'"),
            (
                "examples/hello/Cargo.toml",
                "[package]\nname='h'\n[build-dependencies]\nsdk={path='../../rust/src/a'}",
            ),
            (
                "inherits/Cargo.toml",
                "[package]\nname='i'\nversion.workspace=true",
            ),
        ]);
        assert_eq!(tree.root("rust/src/a"), "");
        assert_eq!(tree.root("rust/src/not"), "rust/src/not");
        assert_eq!(tree.root("examples/hello"), "");
        assert_eq!(tree.root("inherits"), "inherits");
    }

    #[test]
    fn without_a_repository_the_common_folder_is_enough() {
        let tree = Tree::new(&[
            (
                "x/a/Cargo.toml",
                "[package]\nname='a'\n[dependencies]\nb={path='../b'}",
            ),
            ("x/b/Cargo.toml", "[package]\nname='b'"),
            (
                "x/n/package.json",
                "{\n \"dependencies\": {\n  \"b\": \"file:../b\"\n }\n}",
            ),
            ("x/p/requirements.txt", "-e ../b\n"),
        ]);
        for folder in ["x/a", "x/n", "x/p"] {
            assert_eq!(tree.root(folder), "x", "{folder}");
        }
    }

    #[test]
    fn members_are_matched_by_pattern() {
        assert!(matches("src/*", Path::new("src/cli"), false));
        assert!(!matches("src/*", Path::new("src/cli/x"), false));
        assert!(matches("src", Path::new("src/cli/x"), true));
        assert!(matches("./a?c", Path::new("abc"), false));
        assert!(!matches("a*d", Path::new("abc"), false));
    }
}
