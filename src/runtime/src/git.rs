//! Sources in git: understanding what a person wrote, and fetching it with the `git` program.
//!
//! git runs with an environment of its own: no prompt, no configuration of the node, no protocol
//! besides those listed, hooks off. Credentials go through a private configuration file that lives
//! as long as the fetch; they are never in arguments, URLs or messages.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::io::AsyncReadExt as _;

use crate::error::{Error, Output};

/// A repository, a ref and a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// What git is given.
    pub url: String,
    /// Branch, tag or commit; `latest` for the default branch.
    pub reference: String,
    /// Folder below the root of the repository.
    pub folder: String,
}

impl GitSource {
    /// Whether it lies on the node's own disk.
    pub fn is_local(&self) -> bool {
        self.url.starts_with("file://")
    }
}

/// Hosts whose addresses are always `host/owner/repo/folder…`.
const FORGES: [&str; 4] = ["github.com", "gitlab.com", "bitbucket.org", "codeberg.org"];

/// Understands `github.com/org/repo/folder@ref`, `https://host/path/repo.git/folder@ref`,
/// `https://host/repo//folder`, `file:///srv/repo/folder`, `ssh://…`, `git@host:org/repo.git`.
/// `fallback` is the ref when the text has none.
///
/// # Errors
/// `Invalid`, saying what is wrong.
pub fn parse(text: &str, fallback: &str) -> Result<GitSource, Error> {
    let bad = |reason| Error::SourceName {
        source_name: text.chars().take(200).collect(),
        reason,
    };
    if text.is_empty() {
        return Err(bad("it is empty"));
    }
    if text.starts_with('-') || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(bad("it has characters that no address has"));
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    if let Some(scheme) = scheme
        && !["https", "http", "ssh", "git", "file"].contains(&scheme)
    {
        return Err(bad("git speaks https, http, ssh, git and file only"));
    }
    // The part before the first slash may hold `user@`; a ref comes after the last one.
    let slash = rest.find(['/', ':']).unwrap_or(rest.len());
    let (place, reference) = match rest.rfind('@') {
        Some(at) if at > slash => (
            rest.get(..at).unwrap_or_default(),
            rest.get(at + 1..).unwrap_or_default(),
        ),
        _ => (rest, fallback),
    };
    if reference.is_empty() || reference.starts_with('-') || reference.contains("..") {
        return Err(bad("what follows the @ is no branch, tag or commit"));
    }
    let (repository, folder) = split(scheme, place).ok_or_else(|| {
        bad("it does not name a repository: host/owner/repository, and a folder if you like")
    })?;
    crate::detect::relative(&folder).map_err(|_| bad("its folder leaves the repository"))?;
    let url = match scheme {
        Some(scheme) => {
            if repository
                .split('/')
                .next()
                .is_some_and(|h| h.contains(':') && h.contains('@'))
            {
                return Err(bad(
                    "it holds a password; use the secret GIT_CREDENTIALS instead",
                ));
            }
            format!("{scheme}://{repository}")
        }
        None if repository.contains('@') => repository,
        None => format!("https://{repository}"),
    };
    Ok(GitSource {
        url,
        reference: reference.into(),
        folder,
    })
}

/// Repository and folder of a place without scheme and ref.
fn split(scheme: Option<&str>, place: &str) -> Option<(String, String)> {
    let place = place.trim_end_matches('/');
    // The explicit forms: `repo.git/folder` and `repo//folder`.
    let from = usize::from(scheme == Some("file"));
    if let Some(at) = place.get(from..)?.find("//").map(|a| a + from) {
        let repository = place.get(..at)?;
        let folder = place.get(at + 2..)?.to_owned();
        return repository
            .contains('/')
            .then(|| (repository.to_owned(), folder));
    }
    if let Some(at) = place.find(".git/") {
        let folder = place.get(at + 5..)?.to_owned();
        return Some((place.get(..at + 4)?.to_owned(), folder));
    }
    if scheme == Some("file") {
        return Some(local_repository(place));
    }
    if scheme.is_none() && place.contains('@') {
        return place
            .contains(':')
            .then(|| (place.to_owned(), String::new()));
    }
    let parts: Vec<&str> = place.split('/').collect();
    let host = parts.first()?;
    if scheme.is_none() && !host.contains('.') {
        return None;
    }
    if scheme.is_none() || FORGES.contains(host) {
        if parts.len() < 3 || parts.iter().take(3).any(|p| p.is_empty()) {
            return None;
        }
        let repository: Vec<&str> = parts.iter().take(3).copied().collect();
        let folder: Vec<&str> = parts.iter().skip(3).copied().collect();
        return Some((repository.join("/"), folder.join("/")));
    }
    (parts.len() > 1).then(|| (place.to_owned(), String::new()))
}

/// On disk it can be seen where the repository ends.
fn local_repository(place: &str) -> (String, String) {
    let path = Path::new(place);
    for above in path.ancestors() {
        let bare = above.join("HEAD").is_file() && above.join("objects").is_dir();
        if bare || above.join(".git").exists() {
            let folder = path.strip_prefix(above).unwrap_or(Path::new(""));
            return (
                above.to_string_lossy().into_owned(),
                folder.to_string_lossy().into_owned(),
            );
        }
    }
    (place.to_owned(), String::new())
}

/// What a fetch needs besides the address.
#[derive(Debug, Clone)]
pub struct Fetch<'a> {
    /// `user:token` or a token.
    pub credentials: Option<&'a str>,
    /// The operator's variables: proxies, CA bundles.
    pub env: &'a [(String, String)],
    /// The operator's own git configuration, if the build may see one.
    pub config: Option<&'a Path>,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Most bytes on disk while it runs.
    pub bytes: u64,
    /// A new directory for private files, removed by the caller.
    pub home: &'a Path,
}

/// Clones `source` into the new directory `tree`, without history and without `.git`. Returns the
/// commit.
///
/// # Errors
/// `Precondition` with what git said.
pub async fn fetch(source: &GitSource, tree: &Path, how: &Fetch<'_>) -> Result<String, Error> {
    fs::create_dir_all(how.home).map_err(Error::io("create", how.home))?;
    fs::create_dir_all(tree).map_err(Error::io("create", tree))?;
    write_config(source, how)?;
    let git = Git {
        source,
        tree,
        how,
        until: Instant::now() + how.timeout,
    };
    git.run(&["init", "--quiet", "."]).await?;
    // `latest` is what the repository shows first; the names are those Micro tries.
    let candidates: &[&str] = if source.reference == "latest" {
        &["HEAD", "latest", "master", "main", "trunk"]
    } else {
        &[&source.reference]
    };
    let mut failure = None;
    for reference in candidates {
        match git.shallow(reference).await {
            Ok(()) => {
                failure = None;
                break;
            }
            Err(error @ Error::Git { .. }) => {
                failure.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = failure {
        // A short commit id, or a server that hands out branches only.
        let commit =
            source.reference.len() >= 7 && source.reference.bytes().all(|b| b.is_ascii_hexdigit());
        if !commit {
            return Err(error);
        }
        git.whole(&source.reference).await?;
    }
    let commit = git.run(&["rev-parse", "HEAD"]).await?;
    let history = tree.join(".git");
    fs::remove_dir_all(&history).map_err(Error::io("remove", &history))?;
    Ok(commit.trim().to_owned())
}

fn write_config(source: &GitSource, how: &Fetch<'_>) -> Result<(), Error> {
    let mut text = String::from(
        "[safe]\n\tdirectory = *\n[core]\n\thooksPath = /dev/null\n[advice]\n\tdetachedHead = false\n",
    );
    if let Some(config) = how.config {
        text.push_str(&format!(
            "[include]\n\tpath = {}\n",
            config_word(&config.to_string_lossy())
        ));
    }
    if let Some(credentials) = how.credentials
        && let Some((scheme, rest)) = source.url.split_once("://")
        && matches!(scheme, "https" | "http")
    {
        let host = rest.split('/').next().unwrap_or_default();
        // Bound to the host, so that a redirect elsewhere does not carry it along.
        text.push_str(&format!(
            "[http {}]\n\textraHeader = {}\n",
            config_word(&format!("{scheme}://{host}/")),
            config_word(&authorization(host, credentials))
        ));
    }
    let path = how.home.join(".gitconfig");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::io("create", &path))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(Error::io("write", &path))
}

/// A quoted value of git's configuration.
fn config_word(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {}
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn authorization(host: &str, credentials: &str) -> String {
    let credentials = credentials.trim();
    let pair = if credentials.contains(':') {
        credentials.to_owned()
    } else if host.contains("gitlab") {
        format!("oauth2:{credentials}")
    } else if host.contains("bitbucket") {
        format!("x-token-auth:{credentials}")
    } else {
        format!("x-access-token:{credentials}")
    };
    format!("Authorization: Basic {}", STANDARD.encode(pair))
}

struct Git<'a> {
    source: &'a GitSource,
    tree: &'a Path,
    how: &'a Fetch<'a>,
    until: Instant,
}

impl Git<'_> {
    async fn shallow(&self, reference: &str) -> Result<(), Error> {
        let url = self.source.url.as_str();
        self.run(&[
            "fetch",
            "--quiet",
            "--no-tags",
            "--depth=1",
            "--",
            url,
            reference,
        ])
        .await?;
        self.run(&["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"])
            .await
            .map(drop)
    }

    async fn whole(&self, commit: &str) -> Result<(), Error> {
        let url = self.source.url.as_str();
        let all = "+refs/*:refs/remotes/all/*";
        self.run(&["fetch", "--quiet", "--", url, all]).await?;
        self.run(&["checkout", "--quiet", "--force", "--detach", commit])
            .await
            .map(drop)
    }

    /// Runs git in the tree; what it printed.
    async fn run(&self, args: &[&str]) -> Result<String, Error> {
        let mut command = tokio::process::Command::new("git");
        command
            .args(args)
            .current_dir(self.tree)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .envs(self.how.env.iter().map(|(k, v)| (k, v)))
            .env("HOME", self.how.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS", "/bin/false")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
            .env("GIT_ALLOW_PROTOCOL", "https:http:ssh:git:file")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoGit {
                    url: self.source.url.clone(),
                });
            }
            Err(e) => return Err(Error::io("run", "git")(e)),
        };
        let group = child.id();
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let mut work = std::pin::pin!(async {
            let (mut printed, mut said) = (Vec::new(), Vec::new());
            let both = tokio::join!(read(&mut out, &mut printed), read(&mut err, &mut said));
            (child.wait().await, printed, said, both)
        });
        let mut look = tokio::time::interval(Duration::from_millis(500));
        let (status, printed, said, _) = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = look.tick() => {
                    let late = Instant::now() >= self.until;
                    if late || packs(self.tree) > self.how.bytes.saturating_mul(2) {
                        kill_group(group);
                        return Err(if late { self.timeout() } else { self.too_large() });
                    }
                }
            }
        };
        if status.is_ok_and(|s| s.success()) {
            return Ok(String::from_utf8_lossy(&printed).into_owned());
        }
        let text = String::from_utf8_lossy(&said);
        let lines: Vec<String> = text.lines().map(String::from).collect();
        let skip = lines.len().saturating_sub(5);
        Err(Error::Git {
            url: self.source.url.clone(),
            reference: self.source.reference.clone(),
            output: Output(lines.into_iter().skip(skip).collect()),
        })
    }

    fn timeout(&self) -> Error {
        Error::GitTimeout {
            url: self.source.url.clone(),
            seconds: self.how.timeout.as_secs(),
        }
    }

    fn too_large(&self) -> Error {
        Error::TooLarge {
            limit: self.how.bytes,
            unit: "bytes",
            setting: "limits.upload",
        }
    }
}

/// What a child prints, bounded: more than this no message shows.
async fn read(from: &mut Option<impl tokio::io::AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(from) = from {
        let mut bounded = from.take(1 << 20);
        // A broken pipe is the end of the child, which `wait` reports.
        drop(bounded.read_to_end(into).await);
    }
}

/// git starts helpers; all of them go.
fn kill_group(group: Option<u32>) {
    if let Some(group) = group.and_then(|g| i32::try_from(g).ok()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// Bytes that a running fetch has stored.
fn packs(tree: &Path) -> u64 {
    let dirs: [PathBuf; 2] = [
        tree.join(".git/objects/pack"),
        tree.join(".git/objects/info"),
    ];
    dirs.iter()
        .filter_map(|d| fs::read_dir(d).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}

#[cfg(test)]
mod tests;
