//! Puts known bugs back, one at a time, and demands that the ordinary tests catch each of them.
//!
//! Works on a copy: a git worktree of the tree as it is, untracked files excepted, below the target directory, with which
//! it shares what is already built. A patch says in its head which tests catch it (`Caught by: ` and the arguments of
//! `cargo test`); they have to pass without the patch and fail with it. Where it also says `Counted by: ` and a kind of
//! work, the pieces of that work until the first failure are counted, from several first numbers: the median is told.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::soak::child;
use crate::work::Kind;

/// First numbers, and how many pieces each is given to find the bug.
const STARTS: [u64; 5] = [0, 1_000, 2_000, 3_000, 4_000];
const MOST: u64 = 1_000;

struct Mutant {
    name: String,
    path: PathBuf,
    catchers: Vec<String>,
    counted: Vec<Kind>,
}

struct Copy {
    root: PathBuf,
    at: PathBuf,
    target: PathBuf,
}

/// Runs those whose names contain one of the words, or all; whether each was caught.
pub(crate) fn run(words: &[String]) -> io::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let mutants = mutants(&root, words)?;
    if mutants.is_empty() {
        return Err(io::Error::other("no known bug is named like that"));
    }
    let copy = Copy::make(root)?;
    let mut catchers: Vec<_> = mutants.iter().flat_map(|mutant| &mutant.catchers).collect();
    catchers.sort();
    catchers.dedup();
    for catcher in catchers {
        let out = copy.test(catcher)?;
        let text = said(&out);
        if !out.status.success()
            || !text.lines().any(|line| line.starts_with("running ") && !line.starts_with("running 0"))
        {
            return Err(io::Error::other(format!(
                "without any patch: cargo test {catcher}\n{}",
                tail(&text)
            )));
        }
    }
    println!("{:<36} {:<9} {:<24} caught by", "known bug", "caught", "median until caught");
    let mut all = true;
    for mutant in &mutants {
        let (caught, count, by) = match copy.judge(mutant)? {
            Ok((count, by)) => (true, count, by),
            Err(what) => (false, String::new(), what),
        };
        all &= caught;
        println!("{:<36} {:<9} {count:<24} {by}", mutant.name, if caught { "yes" } else { "NO" });
    }
    Ok(all)
}

fn mutants(root: &Path, words: &[String]) -> io::Result<Vec<Mutant>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("tests/mutants"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let patch = path.extension().is_some_and(|extension| extension == "patch");
        if !patch || !(words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let heads = |head: &str| {
            text.lines().filter_map(|line| line.strip_prefix(head)).map(str::to_owned).collect::<Vec<_>>()
        };
        let counted = heads("Counted by: ").iter().filter_map(|kind| Kind::named(kind)).collect();
        found.push(Mutant { name, path, catchers: heads("Caught by: "), counted });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl Copy {
    fn make(root: PathBuf) -> io::Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let at = target.join("mutants");
        let copy = Self { root, at, target };
        copy.remove();
        let stash = copy.git(&copy.root, &["stash", "create"])?;
        let tree = String::from_utf8_lossy(&stash.stdout).trim().to_owned();
        let tree = if tree.is_empty() { "HEAD" } else { &tree };
        let at = copy.at.to_string_lossy().into_owned();
        let added = copy.git(&copy.root, &["worktree", "add", "--quiet", "--detach", &at, tree])?;
        if added.status.success() { Ok(copy) } else { Err(io::Error::other(said(&added))) }
    }

    fn remove(&self) {
        let at = self.at.to_string_lossy();
        // There may be none.
        _ = self.git(&self.root, &["worktree", "remove", "--force", &at]);
    }

    #[expect(clippy::unused_self, reason = "it is said of a copy")]
    fn git(&self, at: &Path, arguments: &[&str]) -> io::Result<Output> {
        Command::new("git").current_dir(at).args(arguments).stdin(Stdio::null()).output()
    }

    fn cargo(&self, arguments: &str) -> io::Result<Output> {
        let mut command = Command::new("timeout");
        // Longer than any of these takes; a bug may make one wait for ever.
        command.arg("1200").arg("cargo").args(arguments.split_whitespace()).current_dir(&self.at);
        command
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never")
            .stdin(Stdio::null())
            .output()
    }

    fn test(&self, arguments: &str) -> io::Result<Output> {
        self.cargo(&format!("test --locked --quiet {arguments}"))
    }

    /// How many pieces of work it takes, and which tests fail; or what is wrong with that.
    fn judge(&self, mutant: &Mutant) -> io::Result<Result<(String, String), String>> {
        let restored = self.git(&self.at, &["checkout", "--quiet", "--", "."])?;
        let path = mutant.path.to_string_lossy();
        let applied = self.git(&self.at, &["apply", &path])?;
        if !restored.status.success() || !applied.status.success() {
            return Ok(Err(format!("it no longer applies: {}", said(&applied).trim())));
        }
        let mut caught = Vec::new();
        for catcher in &mutant.catchers {
            let built = self.test(&format!("--no-run {catcher}"))?;
            if !built.status.success() {
                return Ok(Err(format!("it does not build: {}", tail(&said(&built)))));
            }
            let out = self.test(catcher)?;
            if out.status.success() {
                return Ok(Err(format!("SURVIVED cargo test {catcher}")));
            }
            caught.extend(catcher.split([' ', ':']).next_back().map(str::to_owned));
        }
        let mut counts = Vec::new();
        for &kind in &mutant.counted {
            match self.count(kind)? {
                Ok(count) => counts.push(count),
                Err(what) => return Ok(Err(what)),
            }
        }
        Ok(if caught.is_empty() {
            Err("it names no test".to_owned())
        } else {
            Ok((counts.join(", "), caught.join(" ")))
        })
    }

    /// The median number of pieces until the first failure.
    fn count(&self, kind: Kind) -> io::Result<Result<String, String>> {
        let built = self.cargo("build --locked --quiet -p corelog-tests --bin corelog-tests")?;
        if !built.status.success() {
            return Ok(Err(format!("it does not build: {}", tail(&said(&built)))));
        }
        let program = self.target.join("debug/corelog-tests");
        let mut counts = Vec::new();
        for first in STARTS {
            let done = child(&program, kind, first..first + MOST)?;
            counts.push(done.complaint.map_or(u64::MAX, |_| done.next - first + 1));
        }
        counts.sort_unstable();
        let median = counts[STARTS.len() / 2];
        let unit = kind.name();
        Ok(if median == u64::MAX {
            Err(format!("no {unit} of {MOST} finds it"))
        } else {
            Ok(format!("{median} {unit}s"))
        })
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
}

fn said(out: &Output) -> String {
    [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
