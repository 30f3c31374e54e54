//! For `build.rs`: makes messages, servers and clients of `.proto` files. No protoc is needed.
//!
//! ```no_run
//! fn main() -> Result<(), micro_sdk::build::Error> {
//!     micro_sdk::build::compile(&["proto/helloworld.proto"])
//! }
//! ```
//!
//! What it makes names everything through `micro_sdk`, so that a service lists no tonic and no prost
//! of its own. [`include_proto!`](crate::include_proto) brings it in.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use prost::Message as _;
use prost_build::{Config, ServiceGenerator};

/// Why the files could not be compiled. `Debug` prints the same as `Display`, because Cargo shows that
/// one to people.
#[non_exhaustive]
pub enum Error {
    /// A `.proto` file is wrong.
    Proto(protox::Error),
    /// What was made cannot be written.
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not called by Cargo.
    NotInBuildScript,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Its Debug has the file, line and column, its Display has not.
            Self::Proto(error) => write!(f, "cannot compile the proto files: {error:?}"),
            Self::Write { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            Self::NotInBuildScript => f.write_str(
                "cannot compile proto files: call this in build.rs, where OUT_DIR is set",
            ),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// Compiles `files`. Imports are looked up in the files' own folders.
///
/// # Errors
/// A file that is missing or wrong, with its line.
pub fn compile(files: &[impl AsRef<Path>]) -> Result<(), Error> {
    let mut folders: Vec<&Path> = Vec::new();
    for file in files {
        let folder = match file.as_ref().parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    compile_with(files, &folders)
}

/// Compiles `files`; imports are looked up in `includes`.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(
    files: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
) -> Result<(), Error> {
    let out = env::var_os("OUT_DIR").ok_or(Error::NotInBuildScript)?;
    for include in includes {
        #[expect(clippy::print_stdout, reason = "build scripts speak to Cargo so")]
        {
            println!("cargo:rerun-if-changed={}", include.as_ref().display());
        }
    }
    write(files, includes, Path::new(&out))
}

fn write(
    files: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
    out: &Path,
) -> Result<(), Error> {
    let set = protox::compile(files, includes).map_err(Error::Proto)?;
    let path = out.join("micro_descriptors.bin");
    fs::write(&path, set.encode_to_vec()).map_err(|source| Error::Write { path, source })?;

    let mut config = Config::new();
    config
        .out_dir(out)
        .prost_path("::micro_sdk::prost")
        .prost_types_path("::micro_sdk::prost_types")
        .service_generator(Box::new(Rebased(
            tonic_prost_build::configure()
                .codec_path("::micro_sdk::tonic_prost::ProstCodec")
                .service_generator(),
        )));
    config.compile_fds(set).map_err(|source| Error::Write {
        path: out.to_owned(),
        source,
    })
}

/// tonic's generator, its paths starting at `micro_sdk`: it has no setting for that.
struct Rebased(Box<dyn ServiceGenerator>);

impl ServiceGenerator for Rebased {
    fn generate(&mut self, service: prost_build::Service, buf: &mut String) {
        let mut code = String::new();
        self.0.generate(service, &mut code);
        buf.push_str(&rebase(&code));
    }

    fn finalize(&mut self, buf: &mut String) {
        self.0.finalize(buf);
    }

    fn finalize_package(&mut self, package: &str, buf: &mut String) {
        self.0.finalize_package(package, buf);
    }
}

fn rebase(code: &str) -> String {
    let mut rebased = String::with_capacity(code.len() * 2);
    for line in code.lines() {
        let is_comment = line.trim_start().starts_with("//");
        let mut rest = line;
        while !is_comment && let Some((before, after)) = rest.split_once("tonic::") {
            rebased.push_str(before);
            let continues = |c: char| c == ':' || c == '_' || c.is_alphanumeric();
            if !before.ends_with(continues) {
                rebased.push_str("::micro_sdk::");
            }
            rebased.push_str("tonic::");
            rest = after;
        }
        rebased.push_str(rest);
        rebased.push('\n');
    }
    rebased
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_start_at_tonic_are_rebased() {
        let code = "/// Calls tonic::Status.\nuse tonic::codegen::*;\nx(::micro_sdk::tonic::A, my_tonic::B, tonic::C)";
        assert_eq!(
            rebase(code),
            "/// Calls tonic::Status.\nuse ::micro_sdk::tonic::codegen::*;\n\
             x(::micro_sdk::tonic::A, my_tonic::B, ::micro_sdk::tonic::C)\n"
        );
    }

    #[test]
    fn a_wrong_file_is_named_with_its_line() {
        let folder = env::temp_dir().join(format!("micro-sdk-build-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("bad.proto");
        fs::write(&file, "syntax = \"proto3\";\nmessage {}\n").unwrap();
        let error = write(&[&file], &[&folder], &folder).unwrap_err();
        assert!(error.to_string().contains("bad.proto:2:9"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
