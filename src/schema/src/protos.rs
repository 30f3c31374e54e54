//! Descriptors from the `.proto` files in a release, compiled in process.
//!
//! People keep their files anywhere and import them by the path from the repository, from the folder
//! beside them or from an include folder of their own. So a file is known by the name under which
//! others import it, and an import is any file whose path ends with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use prost_types::FileDescriptorProto;
use protox::{
    Compiler,
    file::{File, FileResolver, GoogleFileResolver},
};

use crate::Error;

/// Folders that hold other people's files or build output.
const SKIPPED: [&str; 6] = [
    "node_modules",
    "target",
    "vendor",
    "venv",
    "testdata",
    "dist",
];
const FILES: usize = 1_000;
const FOLDERS: usize = 20_000;
const FILE_SIZE: u64 = 1024 * 1024;

/// Compiles the services in the `.proto` files below `dir`, with what they import and with comments.
/// `None` when no file defines a service.
///
/// # Errors
/// `Precondition`, naming file and place, when a file does not compile or lacks an import.
pub fn compile_dir(dir: &Path) -> Result<Option<Vec<u8>>, Error> {
    let mut files = BTreeMap::new();
    for path in find(dir)? {
        let name = path.to_string_lossy().replace('\\', "/");
        let file = File::open(&name, &dir.join(&path)).map_err(|e| broken(&e))?;
        files.insert(name, file);
    }
    let resolver = Resolver::new(dir, files)?;
    let roots: Vec<String> = resolver.with_services();
    if roots.is_empty() {
        return Ok(None);
    }
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for root in roots {
        compiler.open_file(&root).map_err(|e| broken(&e))?;
    }
    Ok(Some(compiler.encode_file_descriptor_set()))
}

/// The error with its place and with the reasons below it.
fn broken(error: &protox::Error) -> Error {
    let mut text = match error.file() {
        Some(file) if !error.to_string().contains(file) => format!("{file}: {error}"),
        _ => error.to_string(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    Error::Protos(text)
}

/// The `.proto` files below `dir`, relative to it. Links are not followed.
fn find(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    let mut visited = 0usize;
    while let Some(folder) = folders.pop() {
        visited += 1;
        let unreadable = |e: std::io::Error| Error::Read {
            path: folder.display().to_string(),
            reason: e.to_string(),
        };
        for entry in fs::read_dir(dir.join(&folder)).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            let name = entry.file_name();
            let Some(text) = name.to_str() else { continue };
            if kind.is_dir() {
                if !text.starts_with('.') && !SKIPPED.contains(&text) && visited < FOLDERS {
                    folders.push(folder.join(text));
                }
            } else if kind.is_file() && text.ends_with(".proto") {
                let size = entry.metadata().map_err(unreadable)?.len();
                if size > FILE_SIZE || found.len() >= FILES {
                    return Err(Error::Protos(format!(
                        "{} is more than can be compiled: at most {FILES} files of {FILE_SIZE} bytes",
                        folder.join(text).display()
                    )));
                }
                found.push(folder.join(text));
            }
        }
    }
    Ok(found)
}

/// The files of a release by the names under which they are imported.
struct Resolver {
    files: BTreeMap<String, File>,
    google: GoogleFileResolver,
}

impl Resolver {
    fn new(dir: &Path, by_path: BTreeMap<String, File>) -> Result<Self, Error> {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let imports: BTreeSet<(&str, &str)> = by_path
            .iter()
            .flat_map(|(path, file)| {
                let imports = &file.file_descriptor_proto().dependency;
                imports
                    .iter()
                    .map(|import| (import.as_str(), path.as_str()))
            })
            .collect();
        for (import, importer) in imports {
            if let Some(path) = imported(&by_path, import, importer) {
                names
                    .entry(path.to_owned())
                    .or_insert_with(|| import.to_owned());
            }
        }
        let mut files = BTreeMap::new();
        for (path, file) in by_path {
            match names.remove(&path) {
                Some(name) if name != path => {
                    // A descriptor carries its file's name, so it is read again under the other one.
                    let file = File::open(&name, &dir.join(&path)).map_err(|e| broken(&e))?;
                    files.insert(name, file);
                }
                _ => {
                    files.entry(path).or_insert(file);
                }
            }
        }
        Ok(Self {
            files,
            google: GoogleFileResolver::new(),
        })
    }

    fn with_services(&self) -> Vec<String> {
        self.files
            .iter()
            .filter(|(_, file)| !file.file_descriptor_proto().service.is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// The path of the file that `importer` means by `import`: the one nearest to it.
fn imported<'f>(
    files: &'f BTreeMap<String, File>,
    import: &str,
    importer: &str,
) -> Option<&'f str> {
    let folder = importer.rsplit_once('/').map_or("", |(folder, _)| folder);
    files
        .keys()
        .filter(|path| {
            path.strip_suffix(import)
                .is_some_and(|head| head.is_empty() || head.ends_with('/'))
        })
        .min_by_key(|path| {
            let shared = folder
                .split('/')
                .zip(path.split('/'))
                .take_while(|(a, b)| a == b)
                .count();
            (usize::MAX - shared, path.len())
        })
        .map(String::as_str)
}

impl FileResolver for Resolver {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.files.get(name) {
            Some(file) => Ok(file.clone()),
            None => self.google.open_file(name),
        }
    }
}

/// The well-known files that `files` import, directly or not, and that are not among them.
pub(crate) fn missing_well_known(files: &[FileDescriptorProto]) -> Vec<FileDescriptorProto> {
    let mut known: BTreeSet<String> = files.iter().map(|f| f.name().to_owned()).collect();
    let mut wanted: Vec<String> = files.iter().flat_map(|f| f.dependency.clone()).collect();
    let mut missing = Vec::new();
    while let Some(name) = wanted.pop() {
        if known.contains(&name) {
            continue;
        }
        if let Some(file) = well_known(&name) {
            wanted.extend(file.dependency.iter().cloned());
            missing.push(file);
        }
        known.insert(name);
    }
    missing
}

/// `google/protobuf/timestamp.proto` and its like.
pub(crate) fn well_known(name: &str) -> Option<FileDescriptorProto> {
    let file = GoogleFileResolver::new().open_file(name).ok()?;
    Some(file.file_descriptor_proto().clone())
}
