//! `micro new`: a service that builds and runs as it was made. The service library comes with it, as
//! a folder of the project, so nothing but Rust has to be installed.

use std::{
    fs, io,
    path::{Component, Path},
};

use micro_core::ServiceName;
use serde_json::json;

use crate::{
    command_line::New,
    error::{Error, Result},
    printer::Printer,
};

mod lock;

/// The files of the service library, by their path in it.
const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
const SDK_FOLDER: &str = "micro-sdk";
/// Versions that are known to work together: those of the tested example.
const LOCK: &str = include_str!("../../../examples/helloworld-rust/Cargo.lock");
const LOCK_NAME: &str = "helloworld";

/// What the templates are filled with.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    /// The service.
    name: String,
    /// The Cargo package.
    package_name: String,
    /// The proto package.
    proto: String,
    /// The proto service.
    kind: String,
    /// The module of its generated server.
    module: String,
}

/// Makes the folder of a new service.
pub(crate) fn create(printer: Printer, args: &New) -> Result<()> {
    let text = args
        .name
        .as_deref()
        .filter(|t| !t.is_empty())
        .ok_or_else(|| Error::usage("specify service name").with_hint("micro new helloworld"))?;
    let folder = Path::new(text);
    let last = match folder.components().next_back() {
        Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
        _ => {
            return Err(Error::usage(format!("{text} cannot name a service"))
                .with_hint("micro new helloworld"));
        }
    };
    ServiceName::parse(&last).map_err(|e| Error::usage(e.to_string()))?;
    let names = Names::of(&last);
    if folder.exists() {
        return Err(Error::failed(format!("{text} already exists"))
            .with_hint("choose another name, or remove it first"));
    }
    let files = files(&names);
    if let Err(e) = write(folder, &files) {
        // A half-made project would be in the way of the next try.
        let _ = fs::remove_dir_all(folder);
        return Err(e);
    }
    if printer.is_json() {
        let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
        return printer.json(&json!({ "name": names.name, "folder": text, "files": paths }));
    }
    printer.write(told(text, &names).as_bytes())
}

impl Names {
    fn of(name: &str) -> Self {
        let parts: Vec<String> = name
            .split(['-', '_', '.'])
            .filter(|p| !p.is_empty())
            .map(str::to_lowercase)
            .collect();
        // Neither a proto name nor a crate begins with a digit.
        let digit = name.starts_with(|c: char| c.is_ascii_digit());
        let mut words = parts.clone();
        if digit {
            words.insert(0, "svc".into());
        }
        let mut kind: String = words.iter().map(|w| crate::error::capitalised(w)).collect();
        // The names of the template's messages are taken.
        if ["Request", "Response", "StreamRequest", "StreamResponse"].contains(&kind.as_str()) {
            kind.push_str("Service");
            words.push("service".into());
        }
        Self {
            name: name.into(),
            package_name: words.join("-"),
            proto: words.join("_"),
            module: words.join("_"),
            kind,
        }
    }

    fn fill(&self, template: &str) -> String {
        template
            .replace("{{name}}", &self.name)
            .replace("{{crate}}", &self.package_name)
            .replace("{{package}}", &self.proto)
            .replace("{{type}}", &self.kind)
            .replace("{{module}}", &self.module)
    }
}

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../templates/rust/", $name))
    };
}

/// Every file of the project with its content.
fn files(names: &Names) -> Vec<(String, String)> {
    let mut files = vec![
        (
            "Cargo.toml".to_owned(),
            names.fill(template!("Cargo.toml.in")),
        ),
        (
            "Cargo.lock".to_owned(),
            lock::renamed(LOCK, LOCK_NAME, &names.package_name),
        ),
        ("build.rs".to_owned(), names.fill(template!("build.rs.in"))),
        (
            format!("proto/{}.proto", names.proto),
            names.fill(template!("service.proto.in")),
        ),
        (
            "src/main.rs".to_owned(),
            names.fill(template!("main.rs.in")),
        ),
        (
            "README.md".to_owned(),
            names.fill(template!("README.md.in")),
        ),
        (
            ".gitignore".to_owned(),
            names.fill(template!("gitignore.in")),
        ),
    ];
    files.extend(
        SDK.iter()
            .map(|(path, text)| (format!("{SDK_FOLDER}/{path}"), (*text).to_owned())),
    );
    files
}

fn write(folder: &Path, files: &[(String, String)]) -> Result<()> {
    for (path, text) in files {
        let full = folder.join(path);
        let parent = full.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&full)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
        written.map_err(Error::file("write", &full))?;
    }
    Ok(())
}

fn told(folder: &str, names: &Names) -> String {
    let Names { name, proto, .. } = names;
    format!(
        "Creating service {name}

.
├── Cargo.toml
├── Cargo.lock
├── build.rs
├── micro-sdk
├── proto
│   └── {proto}.proto
├── src
│   └── main.rs
├── README.md
└── .gitignore

Run it on the server that `micro env` shows:

cd {folder}
micro run .
micro {name} --name=Alice
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_every_language_they_go_into() {
        let of = |name: &str| {
            let n = Names::of(name);
            (n.package_name, n.proto, n.kind, n.module)
        };
        let row = |a: &str, b: &str, c: &str, d: &str| (a.into(), b.into(), c.into(), d.into());
        assert_eq!(
            of("helloworld"),
            row("helloworld", "helloworld", "Helloworld", "helloworld")
        );
        assert_eq!(
            of("my-svc.v2"),
            row("my-svc-v2", "my_svc_v2", "MySvcV2", "my_svc_v2")
        );
        assert_eq!(of("2fa"), row("svc-2fa", "svc_2fa", "Svc2fa", "svc_2fa"));
        assert_eq!(
            of("request"),
            row(
                "request-service",
                "request_service",
                "RequestService",
                "request_service"
            )
        );
    }

    #[test]
    fn the_project_is_whole_and_comes_with_the_library() {
        let names = Names::of("my-svc");
        let files = files(&names);
        let text = |path: &str| {
            &files
                .iter()
                .find(|(p, _)| p == path)
                .unwrap_or_else(|| panic!("no {path}"))
                .1
        };
        assert!(text("src/main.rs").contains("Service::new(\"my-svc\")"));
        assert!(text("src/main.rs").contains("impl server::MySvc for Handler"));
        assert!(text("proto/my_svc.proto").contains("package my_svc;"));
        assert!(text("Cargo.toml").contains("name = \"my-svc\""));
        assert!(text("Cargo.lock").contains("name = \"my-svc\""));
        assert!(text("micro-sdk/Cargo.toml").contains("name = \"micro-sdk\""));
        assert!(!text("micro-sdk/src/lib.rs").is_empty());
        for (path, text) in &files {
            let ours = !path.starts_with(SDK_FOLDER);
            assert!(
                !(ours && text.contains("{{")),
                "{path} has an unfilled place"
            );
        }
    }

    #[test]
    fn a_folder_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let printer = Printer::new(crate::printer::Output::Json);
        let target = dir.path().join("hello");
        let args = New {
            name: Some(target.to_str().unwrap().into()),
        };
        create(printer, &args).unwrap();
        assert!(target.join("src/main.rs").is_file());
        let error = create(printer, &args).unwrap_err().to_string();
        assert!(error.ends_with("already exists"), "{error}");
        assert!(create(printer, &New { name: None }).is_err());
        assert!(
            create(
                printer,
                &New {
                    name: Some("a b".into())
                }
            )
            .is_err()
        );
    }
}
