//! What a finished release starts: what the request says, else `micro.toml`, else the `Procfile`,
//! else what the language does.

use std::path::{Path, PathBuf};

use toml::Table;

use super::{APP, BIN, Collect, Plan, SITE_PACKAGES, Tool, package, pairs, quote};
use crate::{
    detect::{Detected, Language, folder_name},
    error::Error,
    manifest::{shell, text_of},
};

/// How to start a finished release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Where, as the instance sees it.
    pub cwd: PathBuf,
    /// What the language needs in the environment.
    pub env: Vec<(String, String)>,
    /// More directories for `PATH`, before the others.
    pub path: Vec<String>,
    /// The toolchain to bind.
    pub toolchain: Option<Tool>,
}

/// Decides what to start: what the request says, else `micro.toml`, else the `Procfile`, else what
/// the language does. `tree` is the finished release; `program` the name of a built one.
///
/// # Errors
/// `Invalid` when there is nothing to start.
pub fn start(
    plan: &Plan,
    detected: &Detected,
    tree: &Path,
    program: Option<&str>,
    command: &[String],
    args: &[String],
) -> Result<Start, Error> {
    // Of a compiled service only its own folder is kept, so that folder is the root.
    let folder = match plan.collect {
        Collect::Source | Collect::Tree => detected.folder.clone(),
        Collect::Program(_) | Collect::Built { .. } => PathBuf::new(),
    };
    let said = match command {
        [] => detected.manifest.command.as_ref().map(|c| c.argv()),
        [line] if line.contains(' ') => Some(shell(line)),
        words => Some(words.to_vec()),
    }
    .or_else(|| detected.procfile.as_deref().map(shell));
    let mut argv = match (said, program, &plan.collect) {
        (Some(said), _, _) => said,
        (None, Some(program), _) => vec![format!("{APP}/{BIN}/{program}")],
        (None, None, Collect::Program(name)) => vec![format!("{APP}/{name}")],
        (None, None, _) => {
            let dir = tree.join(&folder);
            match &detected.language {
                Some(Language::Node) => node_start(&dir, &folder)?,
                Some(Language::Python) => python_start(&dir, &folder)?,
                _ => {
                    return Err(Error::NoStart {
                        folder: folder_name(&folder),
                        looked_for: "micro.toml has a `build` and no `command`",
                    });
                }
            }
        }
    };
    if let (Some(shell), [more, ..]) = (is_shell(&mut argv), args) {
        // `sh -c line word…` would not hand the words to the line.
        let words: Vec<String> = std::iter::once(more)
            .chain(args.iter().skip(1))
            .map(|a| quote(a))
            .collect();
        shell.push(' ');
        shell.push_str(&words.join(" "));
    } else {
        argv.extend(args.iter().cloned());
    }
    let mut env = Vec::new();
    let mut path = vec![format!("{APP}/{BIN}")];
    match plan.runs_with {
        Some(Tool::Python) => {
            env = pairs(&[
                ("PYTHONUNBUFFERED", "1"),
                ("PYTHONDONTWRITEBYTECODE", "1"),
                ("PYTHONPATH", &format!("{APP}/{SITE_PACKAGES}")),
            ]);
            path.push(format!("{APP}/{SITE_PACKAGES}/bin"));
        }
        Some(Tool::Node) => {
            env = pairs(&[("NODE_ENV", "production")]);
            path.push(
                Path::new(APP)
                    .join(&folder)
                    .join("node_modules/.bin")
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        _ => {}
    }
    let cwd = if folder.as_os_str().is_empty() {
        PathBuf::from(APP)
    } else {
        Path::new(APP).join(&folder)
    };
    Ok(Start {
        argv,
        cwd,
        env,
        path,
        toolchain: plan.runs_with,
    })
}

fn is_shell(argv: &mut [String]) -> Option<&mut String> {
    match argv {
        [sh, flag, line] if sh == "/bin/sh" && flag == "-c" => Some(line),
        _ => None,
    }
}

fn node_start(dir: &Path, folder: &Path) -> Result<Vec<String>, Error> {
    let package = package(dir)?;
    if let Some(start) = package.scripts.get("start") {
        // `node x.js` without npm in between: one process less, and signals arrive.
        let words: Vec<&str> = start.split_whitespace().collect();
        let plain = !start.contains(['\'', '"', '&', '|', ';', '$', '>', '<', '`', '*', '\\', '(']);
        if words.first() == Some(&"node") && plain {
            return Ok(words.into_iter().map(String::from).collect());
        }
        return Ok(["npm", "start"].map(String::from).into());
    }
    let candidates = package.main.as_deref().into_iter().chain([
        "server.js",
        "index.js",
        "server.mjs",
        "index.mjs",
        "app.js",
    ]);
    for name in candidates {
        for file in [
            name.to_owned(),
            format!("{name}.js"),
            format!("{name}/index.js"),
        ] {
            if dir.join(&file).is_file() {
                return Ok(vec!["node".into(), file]);
            }
        }
    }
    Err(Error::NoStart {
        folder: folder_name(folder),
        looked_for: "package.json has no start script and no main that exists, and there is no server.js or index.js",
    })
}

fn python_start(dir: &Path, folder: &Path) -> Result<Vec<String>, Error> {
    for name in ["main.py", "app.py", "server.py"] {
        if dir.join(name).is_file() {
            return Ok(vec!["python3".into(), name.into()]);
        }
    }
    let project = text_of(&dir.join("pyproject.toml"))?
        .and_then(|text| toml::from_str::<Table>(&text).ok())
        .and_then(|t| {
            t.get("project")?
                .get("name")?
                .as_str()
                .map(|n| n.replace(['-', '.'], "_"))
        });
    match project {
        Some(package) => Ok(["python3", "-m", &package].map(String::from).into()),
        None => Err(Error::NoStart {
            folder: folder_name(folder),
            looked_for: "there is no main.py, app.py or server.py, and no [project] name in pyproject.toml",
        }),
    }
}
