//! Puts the service library into the program, so that `micro new` can write it beside a new service:
//! a project that was made by this program builds with the library of this program.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let sdk = here.join("../../sdk/rust").canonicalize()?;
    let mut files = Vec::new();
    for name in ["Cargo.toml", "README.md"] {
        let path = sdk.join(name);
        println!("cargo:rerun-if-changed={}", path.display());
        if path.is_file() {
            files.push(path);
        }
    }
    println!("cargo:rerun-if-changed={}", sdk.join("src").display());
    collect(&sdk.join("src"), &mut files)?;
    files.sort();
    let mut out = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&sdk)?.display().to_string();
        let path = file.display().to_string();
        out.push_str(&format!("    ({name:?}, include_str!({path:?})),\n"));
    }
    out.push(']');
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("sdk.rs"), out)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
