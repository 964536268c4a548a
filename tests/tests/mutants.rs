//! The known bugs of `tests/mutants` do not rot: each still applies to the tree, and the tests that catch it exist.
//! That they are caught is shown by `cargo run -p corelog-tests --release -- soak --mutants`, which takes minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn git(arguments: &[&str]) -> Option<std::process::Output> {
    Command::new("git").current_dir(root()).args(arguments).output().ok()
}

#[test]
fn every_known_bug_still_applies_and_names_its_tests() {
    let folder = root().join("tests/mutants");
    let files =
        fs::read_dir(&folder).expect("the folder is there").map(|entry| entry.expect("an entry").path());
    let mut patches: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "patch")).collect();
    patches.sort();
    assert!(patches.len() >= 25, "{} known bugs", patches.len());
    if !root().join(".git").exists() || git(&["--version"]).is_none() {
        eprintln!("not checked: there is no git here to apply patches with");
        return;
    }
    for patch in &patches {
        let name = patch.file_name().expect("a file").to_string_lossy();
        let path = patch.to_str().expect("a path in this repository");
        let applied = git(&["apply", "--check", path]).expect("git runs");
        let reason = String::from_utf8_lossy(&applied.stderr).into_owned();
        assert!(applied.status.success(), "{name} no longer applies: {reason}");
        let text = fs::read_to_string(patch).expect("a patch can be read");
        let mut catchers = text.lines().filter_map(|line| line.strip_prefix("Caught by: ")).peekable();
        assert!(catchers.peek().is_some(), "{name} does not say what catches it");
        for catcher in catchers {
            let test = catcher.rsplit([' ', ':']).next().expect("a last word");
            let found = git(&["grep", "--quiet", &format!("fn {test}("), "--", "*.rs"]).expect("git runs");
            assert!(found.status.success(), "{name}: there is no test {test}");
        }
    }
}
