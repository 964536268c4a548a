//! The rules that one Rust file must keep.

use std::path::Path;

use super::Finding;
use super::source::{self, Line, count_word, has_word};

/// Longest file.
const MAX_LINES: usize = 800;

/// Marks of unfinished work. In two halves, so that this file does not hold them.
const MARKS: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
/// Macros that stand for code not written or left over from a search.
const LEFT_OVER: [&str; 3] = [concat!("to", "do!"), concat!("unimpl", "emented!"), "dbg!"];
/// The attribute of a test that is not run, in two halves likewise.
const IGNORED: &str = concat!("#[ig", "nore");
/// Words that code begins with and a sentence, with what is at its end, does not.
const CODE_STARTS: [&str; 12] =
    ["let ", "pub ", "fn ", "use ", "mod ", "impl ", "struct ", "enum ", "if ", "for ", "while ", "return "];

/// The one crate with unsafe code.
const UNSAFE_CRATE: &str = "engine/uring/";
/// Beside it: a global allocator cannot be written without. Not counted.
const COUNTING_ALLOCATOR: &str = "perf/tests/counting/";
/// The one file that names glommio.
const HOST: &str = "engine/uring/src/host.rs";

/// What the comment above a test's sleep says when the sleep waits for nothing: it chooses the moment of a kill, or is
/// the time over which something is watched.
const CHOSEN_TIME: &str = "No synchronisation:";

/// Checks one file. `path` is relative to the root.
pub(super) fn check(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    let mut say = |line: usize, what: String| findings.push(Finding::new(path, line, what));
    let lines = source::lines(text);
    if lines.len() > MAX_LINES {
        say(lines.len(), format!("{} lines; a file has at most {MAX_LINES}", lines.len()));
    }
    if !text.starts_with("//!") {
        say(1, "does not begin with a `//!` header: what it owns, its invariants".to_owned());
    }
    if is_crate_root(path) && !is_unsafe_place(path) && !text.contains("#![forbid(unsafe_code)]") {
        say(1, "the root of a crate says `#![forbid(unsafe_code)]`".to_owned());
    }
    let mut above = "";
    for (number, line) in (1..).zip(&lines) {
        if let Some(what) = fault(path, line, above) {
            say(number, what);
        }
        above = &line.comment;
    }
}

/// How many times a file says `unsafe` where it is allowed to; the sum of all may only fall.
pub(super) fn unsafe_count(path: &Path, text: &str) -> usize {
    if !path.starts_with(UNSAFE_CRATE) {
        return 0;
    }
    source::lines(text).iter().map(|line| count_word(&line.code, "unsafe")).sum()
}

fn fault(path: &Path, line: &Line, above: &str) -> Option<String> {
    let (code, comment) = (line.code.as_str(), line.comment.as_str());
    if let Some(mark) = MARKS.into_iter().find(|mark| has_word(comment, mark) || has_word(code, mark)) {
        return Some(format!("`{mark}`: do it, or file an issue"));
    }
    if let Some(mark) = LEFT_OVER.into_iter().find(|mark| has_macro(code, mark)) {
        return Some(format!("`{mark}` is left over"));
    }
    if code.contains(IGNORED) {
        return Some("an ignored test tests nothing".to_owned());
    }
    if is_code(comment) {
        return Some("commented-out code: git remembers it".to_owned());
    }
    let in_test = line.in_tests || is_test_file(path);
    if in_test && has_word(code, "sleep") && !above.contains(CHOSEN_TIME) {
        return Some("a test that sleeps is slow or flaky: wait for what it waits for".to_owned());
    }
    if has_word(code, "unsafe") && !is_unsafe_place(path) {
        return Some("unsafe code lives in engine/uring".to_owned());
    }
    if has_word(code, "glommio") && path != Path::new(HOST) {
        return Some(format!("{HOST} is the one file that names glommio"));
    }
    None
}

fn has_macro(code: &str, name: &str) -> bool {
    code.match_indices(name)
        .any(|(at, _)| !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// A plain comment that ends as code does and begins as code does, or is nothing but a brace.
fn is_code(comment: &str) -> bool {
    let Some(text) = comment.strip_prefix("//") else { return false };
    if text.starts_with(['/', '!']) {
        return false;
    }
    let text = text.trim();
    if matches!(text, "}" | "{" | "})" | "});" | "};") {
        return true;
    }
    let ends = text.ends_with([';', '{', '}']) || text.ends_with("),");
    let call = text
        .split(['(', '='])
        .next()
        .is_some_and(|head| head.len() < text.len() && !head.trim().contains(' ') && text.ends_with(';'));
    ends && (call || CODE_STARTS.iter().any(|start| text.starts_with(start)))
}

fn is_unsafe_place(path: &Path) -> bool {
    path.starts_with(UNSAFE_CRATE) || path.starts_with(COUNTING_ALLOCATOR)
}

fn is_crate_root(path: &Path) -> bool {
    path.ends_with("src/lib.rs") || path.ends_with("src/main.rs")
}

/// Integration tests and test modules in files of their own.
fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| name == "tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<(usize, String)> {
        let mut findings = Vec::new();
        check(Path::new(path), text, &mut findings);
        findings.into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn a_good_file_has_no_fault() {
        let text = "//! Owns x.\n\n/// Says `unsafe` and sleep in words.\nfn f() {} // as it is; see g()\n";
        assert_eq!(faults("engine/model/src/x.rs", text), []);
    }

    #[test]
    fn a_sleep_that_waits_for_nothing_says_so() {
        let text = "//! x\n// No synchronisation: the moment of the kill.\nfn f() { sleep(D) }\n";
        assert_eq!(faults("a/tests/x.rs", text), []);
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let todo = MARKS[0];
        let cases = [
            ("a/src/x.rs", "fn f() {}".to_owned(), "header"),
            ("a/src/lib.rs", "//! x".to_owned(), "forbid"),
            ("a/src/x.rs", format!("//! x\n// {todo} later"), todo),
            ("a/src/x.rs", format!("//! x\nfn f() {{ {}() }}", LEFT_OVER[0]), "left over"),
            ("a/src/x.rs", format!("//! x\n{IGNORED}]\nfn f() {{}}"), "ignored"),
            ("a/src/x.rs", "//! x\n// let a = 1;".to_owned(), "commented-out"),
            ("a/src/x.rs", "//! x\n// call(a);".to_owned(), "commented-out"),
            ("a/src/x.rs", "//! x\n// }".to_owned(), "commented-out"),
            ("a/src/x.rs", "//! x\n#[cfg(test)]\nmod tests { fn f() { sleep(1) } }".to_owned(), "sleeps"),
            ("a/tests/x.rs", "//! x\nfn f() { thread::sleep(D) }".to_owned(), "sleeps"),
            ("a/src/x.rs", "//! x\nfn f() { unsafe { g() } }".to_owned(), "unsafe"),
            ("engine/uring/src/x.rs", "//! x\nuse glommio::Task;".to_owned(), "glommio"),
            ("a/src/x.rs", format!("//! x\n{}", "\n".repeat(MAX_LINES)), "lines"),
        ];
        for (path, text, rule) in cases {
            let found = faults(path, &text);
            assert!(found.len() == 1 && found[0].1.contains(rule), "{rule}: {found:?} in {text:?}");
        }
    }

    #[test]
    fn unsafe_is_counted_where_it_is_allowed_and_only_there() {
        let text = "unsafe { a() } // unsafe\nunsafe fn b() {}";
        assert_eq!(unsafe_count(Path::new("engine/uring/src/ring.rs"), text), 2);
        assert_eq!(unsafe_count(Path::new("engine/model/src/id.rs"), text), 0);
    }
}
