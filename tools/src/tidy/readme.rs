//! Every path that a page names must exist.

use std::path::Path;

use super::Finding;

/// A word in backticks is taken for a path when it begins with one of these folders ...
const FOLDERS: [&str; 7] = ["engine", "net", "bench-harness", "tools", "tests", "perf", ".ci"];
/// ... or is a file of the root by its ending.
const ENDINGS: [&str; 3] = [".md", ".rs", ".toml"];

/// Checks one page against the tree: `exists` is asked for paths relative to the root.
pub(super) fn check(path: &Path, text: &str, exists: &dyn Fn(&str) -> bool, findings: &mut Vec<Finding>) {
    for (number, line) in (1..).zip(text.lines()) {
        for named in words(line).filter(|word| is_path(word)) {
            if !exists(named.trim_end_matches('/')) {
                findings.push(Finding::new(path, number, format!("names `{named}`, which does not exist")));
            }
        }
    }
}

/// What stands in backticks and what links point to.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let linked = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    quoted.chain(linked)
}

fn is_path(word: &str) -> bool {
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte));
    let first = word.split('/').next().unwrap_or_default();
    let in_folder = word.contains('/') && FOLDERS.contains(&first);
    let in_root = !word.contains('/') && word.starts_with(|first: char| first.is_ascii_uppercase());
    plain && (in_folder || in_root && ENDINGS.iter().any(|ending| word.ends_with(ending)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_gone_is_found_and_other_words_are_left_alone() {
        let text = "See `engine/model/`, `engine/gone.rs` and [the format](engine/storage/FORMAT.md#frames).\n\
                    `GONE.md`, `cargo run`, `log.buffered`, `limits.toml`, `net`, [x](https://x.org/net/y)";
        let mut findings = Vec::new();
        let exists = |path: &str| matches!(path, "engine/model" | "engine/storage/FORMAT.md");
        check(Path::new("README.md"), text, &exists, &mut findings);
        let found: Vec<_> = findings.iter().map(|finding| (finding.line, finding.what.as_str())).collect();
        assert_eq!(
            found,
            [
                (1, "names `engine/gone.rs`, which does not exist"),
                (2, "names `GONE.md`, which does not exist")
            ]
        );
    }
}
