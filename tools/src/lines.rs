//! The lines of a file, or of standard input, read on a thread of their own into a bounded queue: a file of any
//! size takes the memory of a few chunks. gzip and zstd are told by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use tokio::sync::mpsc;

/// Lines are handed over in chunks of about this many bytes ...
const CHUNK_BYTES: usize = 256 << 10;
/// ... of which so many may wait.
const CHUNKS_WAITING: usize = 4;
/// A longer line is no record that a broker takes.
const MAX_LINE_BYTES: u64 = 16 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Some lines, without their ends.
pub(crate) type Chunk = Vec<Vec<u8>>;

/// Begins to read `path`, or standard input. The queue ends with the file, or with an error.
pub(crate) fn read(path: Option<&Path>) -> io::Result<mpsc::Receiver<io::Result<Chunk>>> {
    let raw: Box<dyn Read + Send> = match path {
        Some(path) => Box::new(File::open(path)?),
        None => Box::new(io::stdin()),
    };
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
        let result = unpacked(raw).and_then(|mut lines| send(&mut *lines, &sender));
        if let Err(error) = result {
            // Without a receiver nobody wants to know.
            sender.blocking_send(Err(error)).ok();
        }
    })?;
    Ok(receiver)
}

fn unpacked(raw: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead>> {
    let mut raw = BufReader::with_capacity(CHUNK_BYTES, raw);
    let start = raw.fill_buf()?;
    if start.starts_with(&GZIP) {
        return Ok(Box::new(BufReader::with_capacity(
            CHUNK_BYTES,
            flate2::bufread::MultiGzDecoder::new(raw),
        )));
    }
    if start.starts_with(&ZSTD) {
        return Ok(Box::new(BufReader::with_capacity(CHUNK_BYTES, zstd::Decoder::with_buffer(raw)?)));
    }
    Ok(Box::new(raw))
}

/// Ends early, and well, when nobody receives any more.
fn send(lines: &mut dyn BufRead, sender: &mpsc::Sender<io::Result<Chunk>>) -> io::Result<()> {
    let mut chunk = Chunk::new();
    let mut bytes = 0;
    while let Some(line) = next(lines)? {
        bytes += line.len();
        chunk.push(line);
        if bytes >= CHUNK_BYTES {
            bytes = 0;
            if sender.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
                return Ok(());
            }
        }
    }
    if !chunk.is_empty() {
        sender.blocking_send(Ok(chunk)).ok();
    }
    Ok(())
}

fn next(lines: &mut dyn BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = lines.take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read as u64 > MAX_LINE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 16 MiB"));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn read_all(bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        let mut chunks = read(Some(file.path()))?;
        let mut lines = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            lines.extend(chunk?);
        }
        Ok(lines)
    }

    #[test]
    fn the_last_line_counts_with_and_without_its_end_and_empty_lines_are_records() {
        assert_eq!(read_all(b"a\n\nb").expect("read"), [b"a".as_slice(), b"", b"b"]);
        assert_eq!(read_all(b"a\r\n").expect("read"), [b"a\r"], "bytes are left as they are");
        assert_eq!(read_all(b"").expect("read"), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn gzip_and_zstd_are_unpacked_and_a_cut_off_file_is_an_error() {
        let text: Vec<u8> = (0..50_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("memory takes it");
        let gzip = gzip.finish().expect("memory takes it");
        let zstd = zstd::encode_all(text.as_slice(), 1).expect("memory takes it");
        for packed in [&gzip, &zstd] {
            let lines = read_all(packed).expect("read");
            assert_eq!((lines.len(), lines[49_999].as_slice()), (50_000, b"line 49999".as_slice()));
            assert!(read_all(&packed[..packed.len() / 2]).is_err());
        }
    }

    #[test]
    fn a_line_without_end_is_not_read_into_memory() {
        let error = read_all(&vec![b'x'; 17 << 20]).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_missing_file_is_said_at_once() {
        assert_eq!(
            read(Some(Path::new("/nonexistent/x"))).expect_err("missing").kind(),
            io::ErrorKind::NotFound
        );
    }
}
