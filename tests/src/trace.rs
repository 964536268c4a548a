//! What happened, in words: to compare two runs of a seed, and to read when one fails.

use std::fmt::{Arguments, Write};

/// The last lines are kept for the reader, and a sum of all of them for the comparison; all lines when asked for.
#[derive(Debug)]
pub struct Trace {
    sum: u64,
    lines: u64,
    line: String,
    kept: Option<String>,
}

impl Trace {
    /// A trace that keeps its text, or its sum alone.
    pub fn new(keep: bool) -> Self {
        Self { sum: 0xcbf2_9ce4_8422_2325, lines: 0, line: String::new(), kept: keep.then(String::new) }
    }

    /// One line.
    pub fn line(&mut self, text: Arguments<'_>) {
        self.line.clear();
        writeln!(self.line, "{text}").expect("a string takes everything");
        self.lines += 1;
        for byte in self.line.bytes() {
            self.sum = (self.sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(kept) = &mut self.kept {
            kept.push_str(&self.line);
        }
    }

    /// FNV-1a over all lines.
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// How many lines.
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// All lines, when they were kept.
    pub fn text(&self) -> Option<&str> {
        self.kept.as_deref()
    }
}

/// A test that fails shows what led to it, when the text was kept.
impl Drop for Trace {
    fn drop(&mut self) {
        if let (true, Some(kept)) = (std::thread::panicking(), &self.kept) {
            eprintln!("{kept}");
        }
    }
}
