//! Gives pieces of work to children, two at a time, and adds up what they say.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Soak;
use crate::work::Kind;

/// Pieces that a child is given at once.
const CHUNK: u64 = 50;
/// What a table says of the end of a child's complaint.
const LINES: usize = 3;
/// And of each of its lines.
const LINE: usize = 400;

/// What one child did.
pub(crate) struct Done {
    /// What was counted, added up.
    pub(crate) counts: BTreeMap<String, u64>,
    /// The first number that was not done.
    pub(crate) next: u64,
    /// What the child said when it died.
    pub(crate) complaint: Option<String>,
}

/// Lets a child do these pieces of work.
pub(crate) fn child(program: &std::path::Path, kind: Kind, numbers: Range<u64>) -> io::Result<Done> {
    let mut command = Command::new(program);
    command.args(["work", kind.name(), &numbers.start.to_string(), &numbers.end.to_string()]);
    command.env("RUST_BACKTRACE", "0").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn()?;
    let mut errors = process.stderr.take().expect("it was asked for");
    // Both are read at once: a child that says much must not wait for us.
    let complaint = thread::spawn(move || {
        let mut text = Vec::new();
        errors.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let mut done = Done { counts: BTreeMap::new(), next: numbers.start, complaint: None };
    for line in BufReader::new(process.stdout.take().expect("it was asked for")).lines() {
        let line = line?;
        let Some((number, counts)) =
            line.strip_prefix("done ").map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
        else {
            continue;
        };
        done.next = number.parse::<u64>().map_err(io::Error::other)? + 1;
        // Names are of several words; each value ends at the next space.
        let mut rest = counts;
        while let Some((name, behind)) = rest.split_once('=') {
            let (value, next) = behind.split_once(' ').unwrap_or((behind, ""));
            *done.counts.entry(name.to_owned()).or_default() +=
                value.parse::<u64>().map_err(io::Error::other)?;
            rest = next;
        }
    }
    let text = complaint.join().expect("reading does not panic")?;
    if !process.wait()?.success() {
        done.complaint = Some(text);
    }
    Ok(done)
}

/// What was done of one kind.
#[derive(Default)]
struct Part {
    runs: u64,
    counts: BTreeMap<String, u64>,
}

struct Board {
    /// The next number of each kind: storms, images, requests.
    next: [u64; 3],
    parts: [Part; 3],
    violations: Vec<String>,
    turn: usize,
}

const KINDS: [Kind; 3] = [Kind::Storm, Kind::Image, Kind::Request];

impl Board {
    /// What is to be done next, if anything is left.
    fn take(&mut self, asked: &Soak) -> Option<(usize, Range<u64>)> {
        for _ in 0..KINDS.len() {
            let at = self.turn % KINDS.len();
            self.turn += 1;
            let begun = self.next[at] - asked.from;
            let images = self.parts[1].counts.get("images").copied().unwrap_or(0);
            let wanted = match KINDS[at] {
                Kind::Image => images < asked.images,
                Kind::Storm | Kind::Request => begun < asked.seeds,
            };
            if wanted {
                let first = self.next[at];
                let left = if KINDS[at] == Kind::Image { CHUNK } else { CHUNK.min(asked.seeds - begun) };
                self.next[at] += left;
                return Some((at, first..first + left));
            }
        }
        None
    }
}

/// Does what was asked for and prints the table; whether every promise was kept.
pub(crate) fn run(asked: &Soak) -> io::Result<bool> {
    // The tree may go on while this runs.
    let (began, commit) = (Instant::now(), commit());
    let limit = asked.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let program = std::env::current_exe()?;
    let parts = [Part::default(), Part::default(), Part::default()];
    let board = Mutex::new(Board { next: [asked.from; 3], parts, violations: Vec::new(), turn: 0 });
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let worker = || -> io::Result<()> {
            while limit.is_none_or(|limit| began.elapsed() < limit) {
                let lock = || board.lock().unwrap_or_else(PoisonError::into_inner);
                let Some((at, mut numbers)) = lock().take(asked) else { return Ok(()) };
                while !numbers.is_empty() {
                    let done = child(&program, KINDS[at], numbers.clone())?;
                    let mut board = lock();
                    board.parts[at].runs += done.next - numbers.start;
                    for (name, value) in done.counts {
                        *board.parts[at].counts.entry(name).or_default() += value;
                    }
                    let Some(complaint) = done.complaint else { break };
                    board.violations.push(violation(KINDS[at], done.next, &complaint));
                    numbers.start = done.next + 1;
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&board, asked, &commit, began.elapsed());
    Ok(board.violations.is_empty())
}

/// A broken promise, and how to see it again.
fn violation(kind: Kind, number: u64, complaint: &str) -> String {
    let first = complaint
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.chars().take(LINE).collect::<String>())
        .take(LINES)
        .collect::<Vec<_>>()
        .join("\n    ");
    let name = kind.name();
    let next = number + 1;
    format!("cargo run -p corelog-tests --release -- work {name} {number} {next}\n    {first}")
}

fn print(board: &Board, asked: &Soak, commit: &str, took: Duration) {
    println!("commit {commit}, {} s", took.as_secs());
    println!("{:<28} {:>16} {:>14}", "what", "numbers", "done");
    for (kind, (part, next)) in KINDS.iter().zip(board.parts.iter().zip(board.next)) {
        let numbers = format!("{}..{next}", asked.from);
        println!("{:<28} {numbers:>16} {:>14}", kind.name(), part.runs);
        for (name, value) in &part.counts {
            println!("  {name:<26} {:>16} {value:>14}", "");
        }
    }
    println!("violations: {}", board.violations.len());
    board.violations.iter().for_each(|violation| println!("  {violation}"));
}

/// The commit that is run, as far as git knows.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).stderr(Stdio::null()).output();
    let said = git.ok().filter(|out| out.status.success()).and_then(|out| String::from_utf8(out.stdout).ok());
    said.map_or_else(|| "unknown".to_owned(), |said| said.trim().to_owned())
}
