//! The body: one archive of columns per batch. `BATCH.md` gives it byte by byte.

use std::mem::size_of;

use rkyv::rancor::Fallible;
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Place, Serialize};

use super::build::RecordRef;
use super::open::OpenBuffer;
use crate::limits::MAX_RECORDS_PER_BATCH;

/// The columns in the order in which they lie in the body: the bytes, because they are written there as records
/// come, then the rest, widest first so that alignment costs nothing. An empty column is an absent one.
#[derive(Archive, Debug, Default, Serialize)]
#[rkyv(derive(Debug))]
pub(super) struct Columns {
    /// Keys and values: key 0, value 0, key 1, value 1, ...
    pub(super) bytes: InPlace,
    /// Microseconds after the base timestamp, when the flag says wide; else empty.
    pub(super) wide_timestamp_delta: Vec<u64>,
    /// Microseconds after the base timestamp, unless the flag says wide.
    pub(super) timestamp_delta: Vec<u32>,
    /// Offset after the base offset; only after compaction, else record `i` has delta `i`.
    pub(super) offset_delta: Vec<u32>,
    /// End of each record's key in `bytes`, which starts where the previous value ends. Absent: no record has a key.
    pub(super) key_end: Vec<u32>,
    /// End of each record's value in `bytes`, which starts where its key ends.
    pub(super) value_end: Vec<u32>,
    /// End of each record's headers, counted in headers. Absent: no record has headers.
    pub(super) header_end: Vec<u32>,
    /// End of each header's name in `header_names`.
    pub(super) header_name_end: Vec<u32>,
    /// End of each header's value in `header_values`.
    pub(super) header_value_end: Vec<u32>,
    /// Bit `i % 8` of byte `i / 8`: the key of record `i` is null. Absent: none is, if there are keys at all.
    pub(super) key_null: Vec<u8>,
    /// The same of values.
    pub(super) value_null: Vec<u8>,
    /// The names of all headers, UTF-8.
    pub(super) header_names: Vec<u8>,
    /// The values of all headers.
    pub(super) header_values: Vec<u8>,
}

/// Bytes that lie at the start of the body before the archive around them is written: only their number is kept.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    pub(super) bytes: usize,
}

impl Archive for InPlace {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.bytes, resolver, out);
    }
}

impl<S: Fallible + ?Sized> Serialize<S> for InPlace {
    fn serialize(&self, _: &mut S) -> Result<VecResolver, S::Error> {
        Ok(VecResolver::from_pos(OpenBuffer::BODY))
    }
}

/// What a record without headers takes beside its bytes: a wide timestamp, two ends, two bits rounded up.
const MAX_BYTES_PER_RECORD: usize = 8 + 4 + 4 + 2;

/// Both null bitmaps, a bit per record and column each, never take more than this.
const fn bitmap_bytes(count: usize) -> usize {
    2 * count.div_ceil(8)
}

impl Columns {
    /// Bytes of the archive's root: a relative pointer and a length per column.
    pub(super) const ROOT_BYTES: usize = size_of::<ArchivedColumns>();

    /// Appends the record with this index to every column but the timestamps; `write` makes the value in place.
    #[inline]
    pub(super) fn push(
        &mut self,
        index: usize,
        record: &RecordRef<'_>,
        value: Option<usize>,
        write: impl FnOnce(&mut [u8]),
        open: &mut OpenBuffer,
    ) {
        if let Some(key) = record.key {
            if self.key_end.is_empty() && index > 0 {
                self.add_null_keys(index);
            }
            open.append(&mut self.bytes.bytes, key.len(), |place| place.copy_from_slice(key));
            self.key_end.push(self.bytes.end());
        } else if !self.key_end.is_empty() {
            set_bit(&mut self.key_null, index);
            self.key_end.push(self.bytes.end());
        }
        match value {
            Some(length) => open.append(&mut self.bytes.bytes, length, write),
            None => set_bit(&mut self.value_null, index),
        }
        self.value_end.push(self.bytes.end());
        if !record.headers.is_empty() || !self.header_end.is_empty() {
            self.push_headers(index, record.headers);
        }
    }

    /// Makes the null bitmaps reach the last record: while records came, they reached the last null.
    pub(super) fn finish(&mut self, count: usize) {
        for bitmap in [&mut self.key_null, &mut self.value_null] {
            if !bitmap.is_empty() {
                bitmap.resize(count.div_ceil(8), 0);
            }
        }
    }

    /// The first key of a batch: the `count` records before it get null ones.
    fn add_null_keys(&mut self, count: usize) {
        self.key_end.push(0);
        self.key_end.extend_from_slice(&self.value_end[..count - 1]);
        (0..count).for_each(|index| set_bit(&mut self.key_null, index));
    }

    fn push_headers(&mut self, index: usize, headers: &[(&str, &[u8])]) {
        // Records before the first one with headers have none.
        self.header_end.resize(index, 0);
        for (name, value) in headers {
            self.header_names.extend_from_slice(name.as_bytes());
            self.header_name_end.push(end(&self.header_names));
            self.header_values.extend_from_slice(value);
            self.header_value_end.push(end(&self.header_values));
        }
        self.header_end.push(end(&self.header_name_end));
    }

    /// Whether `record` with a value of so many bytes, the last of `count`, fits into `max_bytes` however its
    /// timestamp and key turn out. Rough and quick: false may be wrong, true is not.
    #[inline]
    pub(super) fn fit_surely(
        &self,
        count: usize,
        record: &RecordRef<'_>,
        value_bytes: usize,
        max_bytes: usize,
    ) -> bool {
        let key = record.key.map_or(0, <[u8]>::len);
        let columns = count * MAX_BYTES_PER_RECORD + self.bytes.bytes;
        let plain = record.headers.is_empty() && self.header_end.is_empty() && count <= MAX_RECORDS_PER_BATCH;
        plain && columns.saturating_add(key).saturating_add(value_bytes) <= max_bytes
    }

    /// Bytes that the columns of `count` records take, alignment and root aside. Not less than the truth.
    pub(super) fn estimate(&self, count: usize, wide: bool) -> usize {
        self.estimate_with(count, wide, &RecordRef::default(), 0)
    }

    /// The same after `record` is added, which `count` includes. Saturates: a record may be of any size.
    pub(super) fn estimate_with(
        &self,
        count: usize,
        wide: bool,
        record: &RecordRef<'_>,
        value_bytes: usize,
    ) -> usize {
        let has_keys = record.key.is_some() || !self.key_end.is_empty();
        let per_record = if wide { 8 } else { 4 } + 4 + if has_keys { 4 } else { 0 };
        let mut bytes = count * per_record + bitmap_bytes(count) + self.bytes.bytes;
        bytes = bytes.saturating_add(record.key.map_or(0, <[u8]>::len));
        bytes = bytes.saturating_add(value_bytes);
        if record.headers.is_empty() && self.header_end.is_empty() {
            return bytes;
        }
        let added: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let headers = self.header_name_end.len() + record.headers.len();
        let blobs = self.header_names.len() + self.header_values.len();
        bytes.saturating_add(4 * count + 8 * headers + blobs).saturating_add(added)
    }

    /// Empties every column, keeps the memory.
    pub(super) fn clear(&mut self) {
        let Self {
            bytes,
            wide_timestamp_delta,
            timestamp_delta,
            offset_delta,
            key_end,
            value_end,
            header_end,
            header_name_end,
            header_value_end,
            key_null,
            value_null,
            header_names,
            header_values,
        } = self;
        bytes.bytes = 0;
        wide_timestamp_delta.clear();
        for column in
            [timestamp_delta, offset_delta, key_end, value_end, header_end, header_name_end, header_value_end]
        {
            column.clear();
        }
        for column in [key_null, value_null, header_names, header_values] {
            column.clear();
        }
    }
}

impl InPlace {
    #[inline]
    fn end(&self) -> u32 {
        self.bytes as u32
    }
}

/// The length of a column as an end; batches are limited to 16 MiB long before this could be cut off.
fn end<T>(column: &[T]) -> u32 {
    column.len() as u32
}

/// Sets one bit, growing the bitmap to reach it.
fn set_bit(bitmap: &mut Vec<u8>, index: usize) {
    if bitmap.len() <= index / 8 {
        bitmap.resize(index / 8 + 1, 0);
    }
    bitmap[index / 8] |= 1 << (index % 8);
}
