//! Renames a package in a `Cargo.lock`, keeping the order that Cargo wants: it refuses to build with
//! `--locked` from a file that it would write differently.

/// The lock file with the package `old` called `new`.
pub(crate) fn renamed(lock: &str, old: &str, new: &str) -> String {
    let mut parts = lock.split("\n[[package]]\n");
    let head = parts.next().unwrap_or_default();
    let mut packages: Vec<String> = parts.map(|p| p.trim_end().to_owned()).collect();
    let line = format!("name = \"{old}\"\n");
    for package in &mut packages {
        // Ours comes from no registry.
        if package.starts_with(&line) && !package.contains("\nsource = ") {
            *package = package.replacen(&line, &format!("name = \"{new}\"\n"), 1);
        }
    }
    packages.sort_by(|a, b| name(a).cmp(name(b)));
    let mut out = format!("{}\n", head.trim_end());
    for package in packages {
        out.push_str("\n[[package]]\n");
        out.push_str(&package);
        out.push('\n');
    }
    out
}

fn name(package: &str) -> &str {
    package
        .strip_prefix("name = \"")
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "# made by cargo\nversion = 4\n\n[[package]]\nname = \"bytes\"\nversion = \"1.0.0\"\nsource = \"registry\"\n\n[[package]]\nname = \"hello\"\nversion = \"0.1.0\"\ndependencies = [\n \"bytes\",\n]\n";

    #[test]
    fn a_renamed_package_moves_to_its_place() {
        let text = renamed(LOCK, "hello", "alpha");
        assert!(text.find("\"alpha\"").unwrap() < text.find("\"bytes\"\nversion").unwrap());
        assert!(
            text.contains(
                "name = \"alpha\"\nversion = \"0.1.0\"\ndependencies = [\n \"bytes\",\n]\n"
            )
        );
        assert!(text.starts_with("# made by cargo\nversion = 4\n\n[[package]]\n"));
    }

    #[test]
    fn the_same_name_changes_nothing() {
        assert_eq!(renamed(LOCK, "hello", "hello"), LOCK);
    }
}
