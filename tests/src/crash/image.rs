//! What a directory holds, as a value that is cheap to copy: pages are shared until they are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use corelog_storage::{FileName, Listing};

/// What is written whole or not at all, in bytes.
pub const SECTOR: usize = 512;
/// What copies share.
const PAGE: usize = 4096;

#[derive(Debug)]
struct Page {
    /// Tells pages with other bytes apart.
    sum: u64,
    bytes: [u8; PAGE],
}

/// Bytes of one file; a page that was never written is zeros.
#[derive(Clone, Debug)]
struct File {
    pages: Arc<Vec<Option<Arc<Page>>>>,
    bytes: u64,
}

/// All files of a log's directory.
#[derive(Clone, Debug, Default)]
pub struct Image {
    files: BTreeMap<FileName, File>,
}

impl Image {
    /// Names and sizes, as a start lists them.
    pub fn listing(&self) -> Listing {
        Listing { files: self.files.iter().map(|(name, file)| (*name, file.bytes)).collect() }
    }

    /// The size of a file, if it is there.
    pub fn size(&self, name: FileName) -> Option<u64> {
        self.files.get(&name).map(|file| file.bytes)
    }

    /// Makes a file of zeros, or replaces one.
    pub fn create(&mut self, name: FileName, bytes: u64) {
        let pages = vec![None; (bytes as usize).div_ceil(PAGE)];
        self.files.insert(name, File { pages: Arc::new(pages), bytes });
    }

    /// Removes a file.
    pub fn remove(&mut self, name: FileName) {
        self.files.remove(&name);
    }

    /// Writes inside a file, which never becomes longer. Nothing happens where the file is gone.
    pub fn write(&mut self, name: FileName, position: u64, bytes: &[u8]) {
        let Some(file) = self.files.get_mut(&name) else { return };
        let (mut from, end) = (position as usize, (position as usize + bytes.len()).min(file.bytes as usize));
        let pages = Arc::make_mut(&mut file.pages);
        while from < end {
            let (page, at) = (from / PAGE, from % PAGE);
            let length = (PAGE - at).min(end - from);
            let part = &bytes[from - position as usize..][..length];
            let mut new = pages[page].as_ref().map_or([0; PAGE], |page| page.bytes);
            new[at..at + length].copy_from_slice(part);
            pages[page] = Some(Arc::new(Page { sum: sum_of(&new), bytes: new }));
            from += length;
        }
    }

    /// Reads what there is of a file: how many bytes that were.
    pub fn read(&self, name: FileName, position: u64, into: &mut [u8]) -> usize {
        let Some(file) = self.files.get(&name) else { return 0 };
        let end = (position as usize + into.len()).min(file.bytes as usize);
        let mut from = position as usize;
        while from < end {
            let (page, at) = (from / PAGE, from % PAGE);
            let length = (PAGE - at).min(end - from);
            let out = &mut into[from - position as usize..][..length];
            match &file.pages[page] {
                Some(page) => out.copy_from_slice(&page.bytes[at..at + length]),
                None => out.fill(0),
            }
            from += length;
        }
        end.saturating_sub(position as usize)
    }

    /// The bytes of a file from a position on.
    pub fn bytes(&self, name: FileName, position: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let found = self.read(name, position, &mut bytes);
        bytes.truncate(found);
        bytes
    }

    /// A number that two images share when they hold the same, and hardly otherwise.
    pub fn sum(&self) -> u64 {
        let mut sum = 0x9e37_79b9_7f4a_7c15;
        for (name, file) in &self.files {
            let number = match name {
                FileName::Superblock => 1,
                FileName::Extent(number) => 2 | u64::from(*number) << 8,
                FileName::Pack(number) => 3 | u64::from(*number) << 8,
            };
            sum = mix(mix(sum, number), file.bytes);
            for (at, page) in file.pages.iter().enumerate() {
                let page = page.as_ref().map_or(ZEROS, |page| page.sum);
                // A page of zeros is the same whether it was written or not.
                if page != ZEROS {
                    sum = mix(mix(sum, at as u64), page);
                }
            }
        }
        sum
    }

    /// Whole sectors that do not hold zeros only, as file and position.
    pub fn sectors(&self) -> Vec<(FileName, u64)> {
        let mut found = Vec::new();
        for (name, file) in &self.files {
            for (at, page) in file.pages.iter().enumerate() {
                let Some(page) = page else { continue };
                for (sector, bytes) in page.bytes.chunks(SECTOR).enumerate() {
                    if bytes.iter().any(|byte| *byte != 0) {
                        found.push((*name, (at * PAGE + sector * SECTOR) as u64));
                    }
                }
            }
        }
        found
    }
}

/// The sum of a page of zeros.
const ZEROS: u64 = 0;

fn sum_of(bytes: &[u8; PAGE]) -> u64 {
    if bytes.iter().all(|byte| *byte == 0) {
        return ZEROS;
    }
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    words.fold(1, mix).max(1)
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileName = FileName::Extent(2);

    #[test]
    fn a_copy_keeps_what_it_held() {
        let mut image = Image::default();
        image.create(FILE, 16 << 10);
        image.write(FILE, 3_000, &[7; 6_000]);
        let copy = image.clone();
        image.write(FILE, 4_096, &[9; 512]);
        assert_eq!(copy.bytes(FILE, 2_999, 6_002), [&[0][..], &[7; 6_000], &[0]].concat());
        assert_eq!(image.bytes(FILE, 4_095, 514), [&[7][..], &[9; 512], &[7]].concat());
        assert_ne!(copy.sum(), image.sum());
        image.write(FILE, 4_096, &[7; 512]);
        assert_eq!(copy.sum(), image.sum());
        assert_eq!(image.bytes(FILE, 16_000, 999).len(), 384, "a file ends");
    }

    #[test]
    fn zeros_are_zeros_whether_written_or_not() {
        let (mut a, mut b) = (Image::default(), Image::default());
        a.create(FILE, 8 << 10);
        b.create(FILE, 8 << 10);
        a.write(FILE, 0, &[0; 4096]);
        assert_eq!(a.sum(), b.sum());
        b.create(FILE, 4 << 10);
        assert_ne!(a.sum(), b.sum());
        assert!(a.sectors().is_empty());
    }
}
