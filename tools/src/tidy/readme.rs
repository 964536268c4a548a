//! Every path that a page names must exist, and an example that it shows must be the one that is compiled.

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

/// Checks that a block of Rust below a line with a link to a file is that file, without the comment at its top. `read`
/// gives the text of a file, its path relative to the page.
pub(super) fn check_examples(
    path: &Path,
    text: &str,
    read: &dyn Fn(&str) -> Option<String>,
    findings: &mut Vec<Finding>,
) {
    let mut file = None;
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        if line != "```rust" {
            // Between the link and the block nothing but empty lines.
            file = if line.is_empty() { file } else { links(line).find(|link| link.ends_with(".rs")) };
            continue;
        }
        let shown: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let Some(file) = file.take() else { continue };
        let compiled = read(file).unwrap_or_default();
        let code = compiled.lines().skip_while(|line| line.is_empty() || line.starts_with("//!"));
        if !code.eq(shown.iter().copied()) {
            let what = format!("is not `{file}` line by line: show what is compiled");
            findings.push(Finding::new(path, number, what));
        }
    }
}

/// What stands in backticks and what links point to.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.chain(links(line))
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next())
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

    #[test]
    fn an_example_that_is_not_the_file_it_names_is_found() {
        let file = "//! What it does.\n\nuse x::Y;\n\nfn main() {}\n";
        let page = |code: &str| {
            format!("From Rust ([`a.rs`](a.rs)):\n\n```rust\n{code}```\n\n```rust\nlet own = 1;\n```\n")
        };
        let faults = |code: &str| {
            let mut findings = Vec::new();
            let read = |path: &str| (path == "a.rs").then(|| file.to_owned());
            check_examples(Path::new("README.md"), &page(code), &read, &mut findings);
            findings.into_iter().map(|finding| finding.line).collect::<Vec<_>>()
        };
        assert!(faults("use x::Y;\n\nfn main() {}\n").is_empty());
        for other in ["fn main() {}\n", "use x::Y;\n\nfn main() { }\n", "use x::Y;\n\nfn main() {}\n\n", ""] {
            assert_eq!(faults(other), [3], "{other:?}");
        }
    }
}
