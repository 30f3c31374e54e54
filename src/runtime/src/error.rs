//! What can go wrong between a source and a running service. Every message says what could not be
//! done and on what; the hint says what the person who deploys can do about it.

use std::{fmt, path::PathBuf};

use micro_core::{Fault, Kind, caller::NotAllowed, id::InvalidName};

/// An error of a port that the assembly plugs in (directory, credentials).
pub type PortError = Box<dyn std::error::Error + Send + Sync>;

/// The last lines of a build or of an instance, shown below a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output(pub Vec<String>);

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str("; its last output:")?;
        for line in &self.0 {
            write!(f, "\n  {}", printable(line))?;
        }
        Ok(())
    }
}

/// Text from outside as it may stand in a message or a log: control characters are spelled out.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A failure of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A resource with nothing in it (the text is Micro's).
    #[error("blank resource")]
    BlankResource,
    /// A stream without a first message (the text is Micro's).
    #[error("No service was sent")]
    NoServiceSent,
    /// An anonymous upload (the text is Micro's).
    #[error("An account is required to upload source")]
    UploadNeedsAccount,
    /// A name that breaks the rules of its type.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A caller that may not do this.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// A value of a request that cannot be used.
    #[error("{what} {value:?}: {reason}")]
    Option {
        /// Which value.
        what: &'static str,
        /// What was sent.
        value: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// No such service (the text is Micro's; its clients compare it).
    #[error("not found")]
    NotFound,
    /// Nothing is kept for a service (the text is Micro's).
    #[error("Logs not found for service {service}")]
    LogsNotFound {
        /// The service.
        service: String,
    },
    /// A service without a release has no artifact.
    #[error("there is no build of {service}: none of its deployments has succeeded yet")]
    NoRelease {
        /// Name and version.
        service: String,
    },

    /// An upload was named that does not exist.
    #[error("there is no uploaded source {source_name}")]
    NoSource {
        /// What was named.
        source_name: String,
    },
    /// A source that cannot be understood.
    #[error("cannot read the source {source_name:?}: {reason}")]
    SourceName {
        /// What was named.
        source_name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The folder of the service is not in the source.
    #[error("the source has no folder {entrypoint:?}")]
    NoEntrypoint {
        /// The folder.
        entrypoint: String,
    },
    /// An entry of an archive or a tree that is not taken.
    #[error("cannot take {entry} from the source: {problem}")]
    Entry {
        /// The entry, safe to print.
        entry: String,
        /// Why it is refused.
        problem: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// More bytes, files or folders than the node takes.
    #[error("the source is too large: more than {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
        /// The setting behind it.
        setting: &'static str,
    },
    /// Not a tar, or one that ends too early.
    #[error("the archive cannot be read: {0}")]
    Archive(#[source] std::io::Error),
    /// The upload stopped before its end.
    #[error("the upload stopped before its end")]
    Interrupted,

    /// There is no `git` to clone with.
    #[error("cannot clone {url}: git is not installed on this node")]
    NoGit {
        /// What was to be cloned.
        url: String,
    },
    /// git refused or could not.
    #[error("cannot fetch {reference} of {url}{output}")]
    Git {
        /// What was to be cloned.
        url: String,
        /// The branch, tag or commit.
        reference: String,
        /// What git said.
        output: Output,
    },
    /// git took too long.
    #[error("fetching {url} took longer than {seconds} s")]
    GitTimeout {
        /// What was to be cloned.
        url: String,
        /// The limit.
        seconds: u64,
    },
    /// `file://` sources are the operator's.
    #[error("only an administrator of the namespace micro may deploy from {url}")]
    LocalRepository {
        /// The URL.
        url: String,
    },

    /// `micro.toml` or `Procfile` cannot be used.
    #[error("{file}: {problem}")]
    Manifest {
        /// Which file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing in the folder says how to run it.
    #[error("cannot tell how to build or run {folder}: looked for {looked_for}; found {found}")]
    Undetected {
        /// The folder.
        folder: String,
        /// What was looked for.
        looked_for: &'static str,
        /// What is there.
        found: String,
    },
    /// A binary for another machine.
    #[error("{file} is a program for {theirs}, and this node is {ours}")]
    ForeignBinary {
        /// The binary.
        file: String,
        /// Its architecture.
        theirs: String,
        /// The node's.
        ours: &'static str,
    },
    /// Several programs where one is needed.
    #[error("{place} has {} programs and none is called {wanted:?}: {}", names.len(), names.join(", "))]
    ManyBinaries {
        /// Where they are.
        place: String,
        /// The name that would decide.
        wanted: String,
        /// What there is.
        names: Vec<String>,
    },
    /// A build that made nothing to run.
    #[error("the build made no program: {reason}")]
    NoBinary {
        /// What is likely.
        reason: &'static str,
    },
    /// Nothing says what to start.
    #[error("cannot tell what to start in {folder}: {looked_for}")]
    NoStart {
        /// The folder.
        folder: String,
        /// What was looked for.
        looked_for: &'static str,
    },
    /// The node lacks a language's tools.
    #[error("this node cannot build {language}: {tool} is not installed")]
    NoToolchain {
        /// The language.
        language: &'static str,
        /// The missing program.
        tool: &'static str,
        /// The Debian packages that bring it.
        packages: &'static str,
    },
    /// The build job ended badly.
    #[error("the build failed ({reason}){output}")]
    Build {
        /// How it ended.
        reason: String,
        /// Its last lines.
        output: Output,
        /// What may help, when the output shows it.
        remedy: Option<&'static str>,
    },
    /// The build took too long.
    #[error("the build took longer than {seconds} s{output}")]
    BuildTimeout {
        /// The limit.
        seconds: u64,
        /// Its last lines.
        output: Output,
    },

    /// The instance ended before it served.
    #[error("{service} {reason} before it served{output}")]
    Exited {
        /// The service.
        service: String,
        /// How it ended.
        reason: String,
        /// Its last lines.
        output: Output,
    },
    /// The instance lives but nobody can reach it.
    #[error("{service} opened no port within {seconds} s: listen on 127.0.0.1:$PORT{output}")]
    NoPort {
        /// The service.
        service: String,
        /// The limit.
        seconds: u64,
        /// Its last lines.
        output: Output,
    },
    /// The descriptor file of `micro.toml` cannot be used.
    #[error("cannot use the descriptor set {file}")]
    Descriptor {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: Box<micro_schema::Error>,
    },
    /// The service was deleted, or the node stopped, while this went on.
    #[error("the deployment of {service} was cancelled")]
    Cancelled {
        /// The service.
        service: String,
    },
    /// A deployment that the node's end interrupted again and again.
    #[error("the deployment was interrupted {times} times by restarts of the node")]
    GaveUp {
        /// How often.
        times: u32,
    },

    /// A file or directory of the state directory.
    #[error("cannot {what} {path}")]
    Io {
        /// The verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A record of ours that cannot be read back.
    #[error("cannot read the stored record of {service}")]
    Record {
        /// The service.
        service: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The database.
    #[error("cannot read or write the services of this node")]
    Storage(#[from] micro_storage::Error),
    /// The supervisor.
    #[error(transparent)]
    Sandbox(#[from] micro_sandbox::Error),
    /// The registry refused an instance.
    #[error("cannot announce {service}: {source}")]
    Directory {
        /// The service.
        service: String,
        /// Why.
        #[source]
        source: PortError,
    },
    /// No account for the service.
    #[error("cannot make an account for {service}: {source}")]
    Credentials {
        /// The service.
        service: String,
        /// Why.
        #[source]
        source: PortError,
    },
    /// No port on loopback.
    #[error("cannot find a free port on 127.0.0.1")]
    NoFreePort(#[source] std::io::Error),
    /// A task of ours ended early.
    #[error("a task of the runtime ended early")]
    Task,
}

impl Error {
    /// An [`Error::Io`] for `path`.
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// The message with the hint, as it is stored beside a failed service.
    pub(crate) fn full(&self) -> String {
        let mut text = self.to_string();
        if let Self::Io { source, .. } = self {
            text = format!("{text}: {source}");
        }
        match self.hint() {
            Some(hint) => format!("{text}\nhint: {hint}"),
            None => text,
        }
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::Task
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::BlankResource
            | Self::NoServiceSent
            | Self::Name(_)
            | Self::Option { .. }
            | Self::SourceName { .. }
            | Self::NoEntrypoint { .. }
            | Self::Entry { .. }
            | Self::Archive(_)
            | Self::Interrupted
            | Self::Manifest { .. }
            | Self::Undetected { .. }
            | Self::ForeignBinary { .. }
            | Self::ManyBinaries { .. }
            | Self::NoBinary { .. }
            | Self::NoStart { .. }
            | Self::Descriptor { .. } => Kind::Invalid,
            Self::UploadNeedsAccount => Kind::Unauthenticated,
            Self::NotAllowed(e) => e.kind(),
            Self::LocalRepository { .. } => Kind::Denied,
            Self::NotFound
            | Self::LogsNotFound { .. }
            | Self::NoRelease { .. }
            | Self::NoSource { .. } => Kind::NotFound,
            Self::TooLarge { .. } => Kind::Exhausted,
            Self::GitTimeout { .. } | Self::BuildTimeout { .. } => Kind::Timeout,
            Self::NoGit { .. }
            | Self::Git { .. }
            | Self::NoToolchain { .. }
            | Self::Build { .. }
            | Self::Exited { .. }
            | Self::NoPort { .. }
            | Self::Cancelled { .. }
            | Self::GaveUp { .. } => Kind::Precondition,
            Self::Storage(e) => e.kind(),
            Self::Sandbox(e) => e.kind(),
            Self::Io { .. }
            | Self::Record { .. }
            | Self::Directory { .. }
            | Self::Credentials { .. }
            | Self::NoFreePort(_)
            | Self::Task => Kind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSource { .. } => "upload it again with `micro run <directory>`".into(),
            Self::SourceName { .. } => {
                "write it like github.com/org/repo/path@ref, https://host/repo.git or a directory"
                    .into()
            }
            Self::NoEntrypoint { .. } => {
                "name the folder below the root of the repository".into()
            }
            Self::Entry { remedy, .. } => (*remedy).into(),
            Self::TooLarge { setting, .. } => format!(
                "leave build products out with a .gitignore, or let the operator raise {setting} in micro.toml"
            ),
            Self::Archive(_) => "send an uncompressed tar".into(),
            Self::NoGit { .. } => {
                "install it with `apt install git`, or deploy a local directory".into()
            }
            Self::Git { .. } => {
                "check the address and the ref; a private repository needs the secret GIT_CREDENTIALS (user:token)"
                    .into()
            }
            Self::LocalRepository { .. } => {
                "deploy the directory itself, or a repository with an https address".into()
            }
            Self::Undetected { .. } => {
                "add a micro.toml with `command = \"…\"` (and `build = \"…\"`), or a Procfile with a `web:` line"
                    .into()
            }
            Self::ForeignBinary { ours, .. } => format!("build it for {ours}"),
            Self::ManyBinaries { .. } => {
                "say which one with `command` in micro.toml, or rename the service".into()
            }
            Self::NoBinary { .. } | Self::NoStart { .. } => {
                "say what to run with `command = \"…\"` in micro.toml".into()
            }
            Self::NoToolchain { packages, .. } => format!(
                "install it on the node with `apt install {packages}`; a node without it can still run a binary built elsewhere: `micro run ./path/to/binary`"
            ),
            Self::Build {
                remedy: Some(remedy),
                ..
            } => (*remedy).into(),
            Self::BuildTimeout { .. } => {
                "run it again (what was downloaded is kept), or raise build.timeout in micro.toml"
                    .into()
            }
            Self::Exited { .. } => {
                "what it printed says why; a service runs until it is stopped and serves on 127.0.0.1:$PORT"
                    .into()
            }
            Self::NoPort { .. } => {
                "a service serves gRPC or HTTP on 127.0.0.1:$PORT, or registers itself".into()
            }
            Self::GaveUp { .. } | Self::Cancelled { .. } => "run it again".into(),
            Self::Storage(e) => return e.hint(),
            Self::Sandbox(e) => return e.hint(),
            _ => return None,
        })
    }
}
