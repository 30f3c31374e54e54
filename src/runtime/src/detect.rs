//! What kind of service a folder holds. Looks at names and a few bytes; runs nothing.
//!
//! `micro.toml` > `Procfile` > `go.mod` > `Cargo.toml` > `package.json` > Python's files > one
//! executable. The first two say what to run; a language found beside them still brings its
//! dependencies.

use std::{
    env::consts::ARCH,
    fs,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use crate::{
    error::Error,
    manifest::{self, Manifest},
};

/// A language whose tools the node uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Language {
    /// A main package; the module's root is this far above it.
    Go {
        /// The folder of `go.mod`, relative to the root of the source.
        module: PathBuf,
    },
    /// A Cargo package.
    Rust,
    /// A `package.json`.
    Node,
    /// A script, or a project with requirements.
    Python,
    /// A program that is built already: its name in the folder.
    Binary(String),
}

/// Everything the folder says.
#[derive(Debug, Clone)]
pub struct Detected {
    /// The folder of the service, relative to the root of the source.
    pub folder: PathBuf,
    /// Its `micro.toml`, or an empty one.
    pub manifest: Manifest,
    /// The line of its `Procfile`.
    pub procfile: Option<String>,
    /// Its language, if one is recognised.
    pub language: Option<Language>,
}

const LOOKED_FOR: &str = "micro.toml, Procfile, go.mod with *.go, Cargo.toml, package.json, pyproject.toml, requirements.txt, main.py, app.py, server.py, one executable";

/// Looks at `entrypoint` (a folder, or a program) below `root`; `service` decides among several
/// programs.
///
/// # Errors
/// `Invalid` when nothing is recognised, listing what was looked for and what is there.
pub fn detect(root: &Path, entrypoint: &str, service: &str) -> Result<Detected, Error> {
    let entry = relative(entrypoint)?;
    let full = root.join(&entry);
    if full.is_file() {
        let (Some(parent), Some(name)) = (entry.parent(), entry.file_name()) else {
            return Err(Error::NoEntrypoint {
                entrypoint: entrypoint.into(),
            });
        };
        return program(root, parent, &name.to_string_lossy());
    }
    if !full.is_dir() {
        return Err(Error::NoEntrypoint {
            entrypoint: entrypoint.into(),
        });
    }
    let manifest = manifest::read(&full)?;
    let procfile = manifest::procfile(&full)?;
    let says = manifest
        .as_ref()
        .is_some_and(|m| m.command.is_some() || m.build.is_some())
        || procfile.is_some();
    let language = match language(root, &entry)? {
        Some(language) => Some(language),
        // A command may name any of several programs in the folder.
        None if says => None,
        None => only_program(&full, service)?.map(Language::Binary),
    };
    if language.is_none() && !says {
        return Err(Error::Undetected {
            folder: folder_name(&entry),
            looked_for: LOOKED_FOR,
            found: listing(&full),
        });
    }
    Ok(Detected {
        folder: entry,
        manifest: manifest.unwrap_or_default(),
        procfile,
        language,
    })
}

fn program(root: &Path, folder: &Path, name: &str) -> Result<Detected, Error> {
    let dir = root.join(folder);
    let manifest = manifest::read(&dir)?.unwrap_or_default();
    let file = dir.join(name);
    let language = match elf_machine(&file) {
        Some(machine) => {
            right_machine(name, machine)?;
            Language::Binary(name.into())
        }
        None if has_extension(name, "py") => Language::Python,
        None if has_extension(name, "js") || has_extension(name, "mjs") => Language::Node,
        None if starts_with_shebang(&file) => Language::Binary(name.into()),
        None => {
            return Err(Error::Undetected {
                folder: name.into(),
                looked_for: "a program for this machine, or a script",
                found: "neither".into(),
            });
        }
    };
    let procfile = match &language {
        Language::Python => Some(format!("exec python3 {}", crate::plan::quote(name))),
        Language::Node => Some(format!("exec node {}", crate::plan::quote(name))),
        _ => None,
    };
    Ok(Detected {
        folder: folder.into(),
        manifest,
        procfile,
        language: Some(language),
    })
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == extension)
}

fn language(root: &Path, entry: &Path) -> Result<Option<Language>, Error> {
    let dir = root.join(entry);
    let has = |name: &str| dir.join(name).is_file();
    if let Some(module) = go_module(root, entry)
        && (has("go.mod") || has_go_files(&dir))
    {
        return Ok(Some(Language::Go { module }));
    }
    if has("Cargo.toml") {
        return Ok(Some(Language::Rust));
    }
    if has("package.json") {
        return Ok(Some(Language::Node));
    }
    let python = [
        "pyproject.toml",
        "requirements.txt",
        "main.py",
        "app.py",
        "server.py",
    ];
    if python.iter().any(|f| has(f)) {
        return Ok(Some(Language::Python));
    }
    Ok(None)
}

/// The nearest folder at or above `entry` that has a `go.mod`.
fn go_module(root: &Path, entry: &Path) -> Option<PathBuf> {
    entry
        .ancestors()
        .find(|a| root.join(a).join("go.mod").is_file())
        .map(Path::to_path_buf)
}

fn has_go_files(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|e| has_extension(&e.file_name().to_string_lossy(), "go"))
    })
}

/// The one program in a folder, or the one called like the service.
fn only_program(dir: &Path, service: &str) -> Result<Option<String>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.')
            && entry.path().is_file()
            && let Some(machine) = elf_machine(&entry.path())
        {
            found.push((name, machine));
        }
    }
    found.sort();
    let chosen = match found.as_slice() {
        [] => return Ok(None),
        [only] => only,
        several => match several.iter().find(|(name, _)| name == service) {
            Some(named) => named,
            None => {
                return Err(Error::ManyBinaries {
                    place: "the folder".into(),
                    wanted: service.into(),
                    names: found.into_iter().map(|(name, _)| name).collect(),
                });
            }
        },
    };
    right_machine(&chosen.0, chosen.1)?;
    Ok(Some(chosen.0.clone()))
}

/// The machine of an ELF program (`e_machine`), `None` for anything else.
fn elf_machine(path: &Path) -> Option<u16> {
    let mut head = [0_u8; 20];
    fs::File::open(path).ok()?.read_exact(&mut head).ok()?;
    let [0x7f, b'E', b'L', b'F', _, endian, .., t0, t1, m0, m1] = head else {
        return None;
    };
    let half = |a, b| {
        if endian == 2 {
            u16::from_be_bytes([a, b])
        } else {
            u16::from_le_bytes([a, b])
        }
    };
    // ET_EXEC or ET_DYN: not an object file, not a core dump.
    matches!(half(t0, t1), 2 | 3).then(|| half(m0, m1))
}

fn starts_with_shebang(path: &Path) -> bool {
    let mut head = [0_u8; 2];
    fs::File::open(path).is_ok_and(|mut f| f.read_exact(&mut head).is_ok() && head == *b"#!")
}

fn right_machine(file: &str, machine: u16) -> Result<(), Error> {
    let theirs = match machine {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        21 => "powerpc64",
        22 => "s390x",
        _ => "",
    };
    // A 64-bit node runs the 32-bit programs of its own family.
    let runs = theirs == ARCH || matches!((ARCH, theirs), ("x86_64", "x86") | ("aarch64", "arm"));
    if runs {
        return Ok(());
    }
    Err(Error::ForeignBinary {
        file: file.into(),
        theirs: if theirs.is_empty() {
            format!("machine {machine}")
        } else {
            theirs.into()
        },
        ours: ARCH,
    })
}

/// A path below the root that is not trusted to be one.
pub(crate) fn relative(entrypoint: &str) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    for part in Path::new(entrypoint).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) if !entrypoint.contains('\0') => path.push(name),
            _ => {
                return Err(Error::NoEntrypoint {
                    entrypoint: entrypoint.into(),
                });
            }
        }
    }
    Ok(path)
}

pub(crate) fn folder_name(folder: &Path) -> String {
    if folder.as_os_str().is_empty() {
        "the source".into()
    } else {
        folder.display().to_string()
    }
}

/// A few names of what is in a folder.
pub(crate) fn listing(dir: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(dir)
        .map(|entries| {
            entries
                .flatten()
                .map(|e| crate::error::printable(&e.file_name().to_string_lossy()))
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    let more = names.len().saturating_sub(8);
    names.truncate(8);
    match (names.is_empty(), more) {
        (true, _) => "an empty folder".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend(2_u16.to_le_bytes());
        head.extend(machine.to_le_bytes());
        head.resize(64, 0);
        head
    }

    fn ours() -> u16 {
        match ARCH {
            "aarch64" => 183,
            _ => 62,
        }
    }

    #[test]
    fn languages_are_told_by_their_files() {
        type Files<'a> = &'a [(&'a str, &'a [u8])];
        let cases: &[(Files<'_>, Language)] = &[
            (
                &[("go.mod", b"module x"), ("main.go", b"")],
                Language::Go {
                    module: PathBuf::new(),
                },
            ),
            (
                &[("Cargo.toml", b""), ("package.json", b"")],
                Language::Rust,
            ),
            (&[("package.json", b"{}"), ("main.py", b"")], Language::Node),
            (&[("app.py", b"")], Language::Python),
            (&[("requirements.txt", b"")], Language::Python),
        ];
        for (files, language) in cases {
            let dir = tree(files);
            assert_eq!(
                detect(dir.path(), "", "x").unwrap().language.as_ref(),
                Some(language)
            );
        }
    }

    #[test]
    fn a_go_service_below_its_module_is_found() {
        let dir = tree(&[
            ("go.mod", b"module x"),
            ("helloworld/main.go", b""),
            ("py/main.py", b""),
        ]);
        let detected = detect(dir.path(), "./helloworld", "x").unwrap();
        assert_eq!(
            detected.language,
            Some(Language::Go {
                module: PathBuf::new()
            })
        );
        assert_eq!(detected.folder, Path::new("helloworld"));
        assert_eq!(
            detect(dir.path(), "py", "x").unwrap().language,
            Some(Language::Python),
            "go.mod above does not make a Python folder Go"
        );
    }

    #[test]
    fn one_program_is_enough_and_several_need_a_name() {
        let binary = elf(ours());
        let dir = tree(&[("server", &binary), ("notes.txt", b"x")]);
        assert_eq!(
            detect(dir.path(), "", "x").unwrap().language,
            Some(Language::Binary("server".into()))
        );
        assert_eq!(
            detect(dir.path(), "server", "x").unwrap().language,
            Some(Language::Binary("server".into()))
        );
        let dir = tree(&[("a", &binary), ("b", &binary)]);
        assert!(matches!(
            detect(dir.path(), "", "x"),
            Err(Error::ManyBinaries { .. })
        ));
        assert_eq!(
            detect(dir.path(), "", "b").unwrap().language,
            Some(Language::Binary("b".into()))
        );
        let dir = tree(&[("a", &elf(8))]);
        assert!(matches!(
            detect(dir.path(), "", "x"),
            Err(Error::ForeignBinary { .. })
        ));
    }

    #[test]
    fn micro_toml_and_procfile_come_first() {
        let dir = tree(&[("micro.toml", b"command='./x'"), ("main.py", b"")]);
        let detected = detect(dir.path(), "", "x").unwrap();
        assert!(detected.manifest.command.is_some());
        assert_eq!(detected.language, Some(Language::Python));
        let dir = tree(&[("Procfile", b"web: ./x")]);
        let detected = detect(dir.path(), "", "x").unwrap();
        assert_eq!(detected.procfile.as_deref(), Some("./x"));
        assert_eq!(detected.language, None);
    }

    #[test]
    fn nothing_recognised_lists_what_was_looked_for() {
        let dir = tree(&[("README.md", b"")]);
        let text = detect(dir.path(), "", "x").unwrap_err().to_string();
        assert!(
            text.contains("go.mod") && text.contains("README.md"),
            "{text}"
        );
        for bad in ["../x", "/etc", "missing"] {
            assert!(
                matches!(
                    detect(dir.path(), bad, "x"),
                    Err(Error::NoEntrypoint { .. })
                ),
                "{bad}"
            );
        }
    }
}
