//! Standard output: the data of a command and nothing else. A reader that went away (`corelog consume T | head`)
//! ends the command without complaint.

use std::io::{self, StdoutLock, Write};

use crate::failure::Failure;

/// Standard output, buffered; call [`Output::flush`] when the reader should see it.
pub struct Output {
    writer: io::BufWriter<StdoutLock<'static>>,
    reader_gone: bool,
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

impl Output {
    /// Takes standard output for this command.
    pub fn new() -> Self {
        Self { writer: io::BufWriter::with_capacity(64 << 10, io::stdout().lock()), reader_gone: false }
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let result = self.writer.write_all(bytes);
        self.note(result)
    }

    /// Writes one line.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes one JSON document on one line.
    pub fn json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Lets the reader see what was written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let result = self.writer.flush();
        self.note(result)
    }

    /// Whether nobody reads any more: there is nothing left to do.
    pub const fn is_reader_gone(&self) -> bool {
        self.reader_gone
    }

    fn note(&mut self, result: io::Result<()>) -> Result<(), Failure> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.reader_gone = true;
                Ok(())
            }
            Err(error) => Err(Failure::io("standard output cannot be written", &error)),
        }
    }
}
