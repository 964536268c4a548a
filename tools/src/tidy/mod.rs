//! The rules of the code that neither the compiler nor clippy knows. A rule lives here or it is a wish.
//!
//! `cargo run -p corelog --bin tidy` checks the whole tree; the rules themselves are pure functions of a path and
//! a text. What git does not see (build output, hidden folders) is not looked at.

mod manifest;
mod readme;
mod rust;
mod source;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Holds how often the tree may say `unsafe`. The number may only fall.
const UNSAFE_BUDGET: &str = "tools/unsafe-budget.txt";
/// Pages whose paths are checked.
const PAGES: [&str; 2] = ["README.md", "net/wire/PROTOCOL.md"];

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the root.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The rule, and how to keep it.
    pub what: String,
}

impl Finding {
    fn new(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

/// Checks the tree below `root`.
pub fn check(root: &Path) -> io::Result<Vec<Finding>> {
    let mut paths = Vec::new();
    collect(root, Path::new(""), &mut paths)?;
    paths.sort();
    let mut findings = Vec::new();
    let mut unsafe_count = 0;
    for path in &paths {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(root.join(path))?;
            rust::check(path, &text, &mut findings);
            unsafe_count += rust::unsafe_count(path, &text);
            check_referenced(root, path, &mut findings);
        } else if path.ends_with("Cargo.toml") {
            manifest::check(path, &fs::read_to_string(root.join(path))?, &mut findings);
        }
    }
    for page in PAGES.map(Path::new) {
        if let Ok(text) = fs::read_to_string(root.join(page)) {
            // A page below the root may name what lies beside it.
            let beside = root.join(page.parent().unwrap_or(Path::new("")));
            let exists = |named: &str| root.join(named).exists() || beside.join(named).exists();
            readme::check(page, &text, &exists, &mut findings);
            let read = |named: &str| fs::read_to_string(beside.join(named)).ok();
            readme::check_examples(page, &text, &read, &mut findings);
        }
    }
    let budget = fs::read_to_string(root.join(UNSAFE_BUDGET))?;
    findings.extend(check_budget(&budget, unsafe_count));
    Ok(findings)
}

/// The ratchet: more than the budget is refused, and less must be written down so that it stays less.
fn check_budget(budget: &str, count: usize) -> Option<Finding> {
    let path = Path::new(UNSAFE_BUDGET);
    match budget.trim().parse::<usize>() {
        Err(_) => Some(Finding::new(path, 1, "holds one number")),
        Ok(budget) if count > budget => {
            Some(Finding::new(path, 1, format!("`unsafe` is said {count} times, the budget is {budget}")))
        }
        Ok(budget) if count < budget => Some(Finding::new(
            path,
            1,
            format!("`unsafe` is said {count} times only: lower the budget to that"),
        )),
        Ok(_) => None,
    }
}

/// A file that no other declares as a module is never compiled.
fn check_referenced(root: &Path, path: &Path, findings: &mut Vec<Finding>) {
    let (Some(stem), Some(folder)) = (path.file_stem().and_then(|stem| stem.to_str()), path.parent()) else {
        return;
    };
    let in_src = path.components().any(|part| part.as_os_str() == "src");
    let is_root = matches!(stem, "lib" | "main") || folder.ends_with("src/bin");
    if !in_src || is_root {
        return;
    }
    let (name, folder) = match (stem, folder.file_name().and_then(|name| name.to_str()), folder.parent()) {
        ("mod", Some(name), Some(above)) => (name, above),
        _ => (stem, folder),
    };
    let declaration = format!("mod {name};");
    let parents =
        [folder.join("mod.rs"), folder.join("lib.rs"), folder.join("main.rs"), folder.with_extension("rs")];
    let declared = |parent: &PathBuf| {
        fs::read_to_string(root.join(parent)).is_ok_and(|text| {
            text.lines().any(|line| line.trim().ends_with(&declaration) && !line.trim().starts_with("//"))
        })
    };
    if !parents.iter().any(declared) {
        findings.push(Finding::new(path, 1, "no file declares this module"));
    }
}

fn collect(root: &Path, folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.') || name == "target";
        if hidden {
            continue;
        }
        let path = folder.join(&name);
        if entry.file_type()?.is_dir() {
            collect(root, &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn a_file_that_no_module_declares_is_found() {
        let root = tree(&[
            (UNSAFE_BUDGET, "0\n"),
            ("a/src/lib.rs", "//! a\n#![forbid(unsafe_code)]\nmod used;\nmod deep;\n"),
            ("a/src/used.rs", "//! used\n"),
            ("a/src/parked.rs", "//! parked\n"),
            ("a/src/deep/mod.rs", "//! deep\nmod inner;\n"),
            ("a/src/deep/inner.rs", "//! inner\n"),
            ("target/junk.rs", "junk"),
        ]);
        let found = check(root.path()).expect("readable");
        assert_eq!(found, [Finding::new(Path::new("a/src/parked.rs"), 1, "no file declares this module")]);
    }

    #[test]
    fn the_unsafe_budget_is_exact() {
        assert_eq!(check_budget("3\n", 3), None);
        assert!(
            check_budget("3\n", 4).is_some_and(|finding| finding.what.contains("4 times, the budget is 3"))
        );
        assert!(check_budget("3\n", 2).is_some_and(|finding| finding.what.contains("lower the budget")));
        assert!(check_budget("many", 2).is_some());
    }
}
