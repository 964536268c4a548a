//! Reading a batch in place: validated once when it is opened, then records are slices of the body.
//!
//! **Invariant:** after [`BatchView::open`] succeeded no access panics or leaves the body, whatever the bytes are.
//! A CRC is not a proof of that: whoever sends hostile bytes can sum them as well.

use rkyv::rancor::Failure;
use rkyv::rend::{u32_le, u64_le};
use rkyv::util::AlignedVec;

use super::codec::{Codec, decompress};
use super::columns::ArchivedColumns;
use super::error::BatchError;
use super::header::{
    BATCH_HEADER_BYTES, BatchHeader, BodyFormat, FLAG_WIDE_TIMESTAMPS, SCHEMA_VERSION, UNREADABLE_FLAGS,
};
use crate::limits::BATCH_ALIGN;

/// A validated batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    timestamps: Timestamps<'a>,
    offset_delta: &'a [u32_le],
    key_end: &'a [u32_le],
    value_end: &'a [u32_le],
    key_null: &'a [u8],
    value_null: &'a [u8],
    bytes: &'a [u8],
    headers: HeaderColumns<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Timestamps<'a> {
    Narrow(&'a [u32_le]),
    Wide(&'a [u64_le]),
}

/// The headers of all records, as small as it can be because every [`Record`] carries it.
#[derive(Clone, Copy, Debug)]
struct HeaderColumns<'a> {
    columns: &'a ArchivedColumns,
    /// The column of names, known to be UTF-8.
    names: &'a str,
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: u64,
    /// Microseconds since the Unix epoch.
    pub timestamp_us: u64,
    /// What the partitioner and compaction look at; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The event itself; `None` is null.
    pub value: Option<&'a [u8]>,
    headers: HeaderColumns<'a>,
    index: usize,
}

impl<'a> Record<'a> {
    /// Names and values, in order; names may repeat.
    pub fn headers(&self) -> Headers<'a> {
        let (next, end) = self.headers.of(self.index);
        Headers { columns: self.headers, next, end }
    }
}

impl<'a> BatchView<'a> {
    /// Validates the batch at the start of `batch`, its CRCs excepted, in place; `scratch` is used, and replaced,
    /// only when the body is compressed. `batch` must be 16-aligned in memory.
    pub fn open(batch: &'a [u8], scratch: &'a mut AlignedVec<16>) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(batch)?;
        if header.format != BodyFormat::Columns {
            return Err(BatchError::Format(header.format as u8));
        }
        if header.schema_version != SCHEMA_VERSION {
            return Err(BatchError::Schema(header.schema_version));
        }
        if header.flags & UNREADABLE_FLAGS != 0 {
            return Err(BatchError::Flags(header.flags));
        }
        let stored = batch.get(BATCH_HEADER_BYTES..header.batch_bytes()).ok_or(BatchError::Truncated)?;
        let body = if header.codec == Codec::None {
            stored
        } else {
            decompress(header.codec, stored, header.uncompressed_bytes as usize, scratch)?;
            scratch.as_slice()
        };
        if !body.as_ptr().addr().is_multiple_of(BATCH_ALIGN) {
            return Err(BatchError::Unaligned);
        }
        let root = header.root_position as usize;
        let columns = rkyv::api::low::access_pos::<ArchivedColumns, Failure>(body, root)
            .map_err(|Failure| BatchError::Archive)?;
        Self::agree(header, columns)
    }

    /// Takes the columns if they agree with each other and with the header.
    fn agree(header: BatchHeader, columns: &'a ArchivedColumns) -> Result<Self, BatchError> {
        let count = header.record_count as usize;
        let timestamps = Timestamps::agree(&header, columns)?;
        let offset_delta = columns.offset_delta.as_slice();
        offsets_agree(&header, offset_delta)?;
        let (key_end, value_end) = (columns.key_end.as_slice(), columns.value_end.as_slice());
        let key_null = bitmap(&columns.key_null, count)?;
        let value_null = bitmap(&columns.value_null, count)?;
        let bytes = columns.bytes.as_slice();
        let keys_agree = key_end.is_empty() && key_null.is_empty()
            || key_end.len() == count && is_between(key_end, value_end);
        if value_end.len() != count || !keys_agree || !is_rising(value_end, bytes.len()) {
            return Err(BatchError::Columns);
        }
        let headers = HeaderColumns::agree(count, columns)?;
        let view = Self {
            header,
            timestamps,
            offset_delta,
            key_end,
            value_end,
            key_null,
            value_null,
            bytes,
            headers,
        };
        if view.nulls_are_empty() { Ok(view) } else { Err(BatchError::Columns) }
    }

    /// Whether no null hides bytes. Costs a pass over the records only when there are nulls.
    fn nulls_are_empty(&self) -> bool {
        if self.key_null.is_empty() && self.value_null.is_empty() {
            return true;
        }
        (0..self.len()).all(|index| {
            let start = start_of(self.value_end, index);
            let value_end = self.value_end[index].to_native() as usize;
            let key_end =
                if self.key_end.is_empty() { start } else { self.key_end[index].to_native() as usize };
            (start == key_end || !is_set(self.key_null, index))
                && (key_end == value_end || !is_set(self.value_null, index))
        })
    }

    /// The header as it was parsed.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Number of records.
    pub const fn len(&self) -> usize {
        self.header.record_count as usize
    }

    /// Never: an empty batch is not one.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record with this index.
    ///
    /// # Panics
    /// When `index` is not below [`Self::len`].
    #[inline]
    pub fn record(&self, index: usize) -> Record<'a> {
        let start = start_of(self.value_end, index) as u32;
        self.record_from(index, start)
    }

    /// All records, in order.
    #[inline]
    pub fn records(&self) -> Records<'a> {
        Records { view: *self, index: 0, start: 0 }
    }

    /// The record whose bytes start at `start`.
    #[inline]
    fn record_from(&self, index: usize, start: u32) -> Record<'a> {
        let value_end = self.value_end[index].to_native();
        let key_end = if self.key_end.is_empty() { start } else { self.key_end[index].to_native() };
        let key = &self.bytes[start as usize..key_end as usize];
        let value = &self.bytes[key_end as usize..value_end as usize];
        let delta = match self.offset_delta {
            [] => index as u64,
            deltas => u64::from(deltas[index].to_native()),
        };
        Record {
            offset: self.header.base_offset + delta,
            timestamp_us: self.header.base_timestamp_us + self.timestamps.delta(index),
            key: (!self.key_end.is_empty() && !is_set(self.key_null, index)).then_some(key),
            value: (!is_set(self.value_null, index)).then_some(value),
            headers: self.headers,
            index,
        }
    }
}

impl<'a> Timestamps<'a> {
    /// The column that the flag names, if it fits the count, and its range the header.
    fn agree(header: &BatchHeader, columns: &'a ArchivedColumns) -> Result<Self, BatchError> {
        let wide = columns.wide_timestamp_delta.as_slice();
        let narrow = columns.timestamp_delta.as_slice();
        let is_wide = header.flags & FLAG_WIDE_TIMESTAMPS != 0;
        let (used, unused) = if is_wide { (wide.len(), narrow.len()) } else { (narrow.len(), wide.len()) };
        if used != header.record_count as usize || unused != 0 {
            return Err(BatchError::Columns);
        }
        let (min, max) = if is_wide {
            range(wide.iter().map(|delta| delta.to_native()), u64::MAX)
        } else {
            let (min, max) = range(narrow.iter().map(|delta| delta.to_native()), u32::MAX);
            (u64::from(min), u64::from(max))
        };
        // The largest sum does not overflow, so none does.
        if min != 0 || header.base_timestamp_us.checked_add(max) != Some(header.max_timestamp_us) {
            return Err(BatchError::Timestamps);
        }
        Ok(if is_wide { Self::Wide(wide) } else { Self::Narrow(narrow) })
    }

    #[inline]
    fn delta(&self, index: usize) -> u64 {
        match self {
            Self::Narrow(deltas) => u64::from(deltas[index].to_native()),
            Self::Wide(deltas) => deltas[index].to_native(),
        }
    }
}

impl<'a> HeaderColumns<'a> {
    fn agree(count: usize, columns: &'a ArchivedColumns) -> Result<Self, BatchError> {
        let names = std::str::from_utf8(&columns.header_names).map_err(|_| BatchError::HeaderNames)?;
        let headers = columns.header_name_end.len();
        let per_record = columns.header_end.is_empty() || columns.header_end.len() == count;
        let agree = per_record
            && columns.header_value_end.len() == headers
            && is_rising(&columns.header_end, headers)
            && is_rising(&columns.header_name_end, names.len())
            && is_rising(&columns.header_value_end, columns.header_values.len());
        if !agree {
            return Err(BatchError::Columns);
        }
        // Valid as a whole is not valid name by name.
        if !columns.header_name_end.iter().all(|end| names.is_char_boundary(end.to_native() as usize)) {
            return Err(BatchError::HeaderNames);
        }
        Ok(Self { columns, names })
    }

    /// First header of the record with this index, and the one after its last.
    fn of(&self, index: usize) -> (u32, u32) {
        match self.columns.header_end.as_slice() {
            [] => (0, 0),
            ends => (start_of(ends, index) as u32, ends[index].to_native()),
        }
    }

    /// The header with this index among those of all records.
    fn get(&self, index: usize) -> (&'a str, &'a [u8]) {
        let name_end = self.columns.header_name_end.as_slice();
        let value_end = self.columns.header_value_end.as_slice();
        let name = start_of(name_end, index)..name_end[index].to_native() as usize;
        let value = start_of(value_end, index)..value_end[index].to_native() as usize;
        (&self.names[name], &self.columns.header_values[value])
    }
}

/// The records of a batch, in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    view: BatchView<'a>,
    index: usize,
    /// Where the next record's bytes start: the end of the previous value, so that it is read once.
    start: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        if self.index == self.view.len() {
            return None;
        }
        let record = self.view.record_from(self.index, self.start);
        self.start = self.view.value_end[self.index].to_native();
        self.index += 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.view.len() - self.index;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Records<'_> {}

/// The headers of one record, in order.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    columns: HeaderColumns<'a>,
    next: u32,
    end: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.end {
            return None;
        }
        let header = self.columns.get(self.next as usize);
        self.next += 1;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Where item `index` of a column of ends starts.
#[inline]
fn start_of(ends: &[u32_le], index: usize) -> usize {
    if index == 0 { 0 } else { ends[index - 1].to_native() as usize }
}

/// Whether ends never fall and the last one is the end of what they divide. Branchless, so that it vectorises.
fn is_rising(ends: &[u32_le], total: usize) -> bool {
    let rising = ends.windows(2).fold(true, |ok, pair| ok & (pair[0].to_native() <= pair[1].to_native()));
    rising && ends.last().map_or(0, |end| end.to_native() as usize) == total
}

/// Whether every key ends between the end of the previous value and the end of its own.
fn is_between(key_end: &[u32_le], value_end: &[u32_le]) -> bool {
    let before_value = key_end.iter().zip(value_end).fold(true, |ok, (key, value)| ok & (key <= value));
    let after_previous =
        key_end.iter().skip(1).zip(value_end).fold(true, |ok, (key, value)| ok & (key >= value));
    before_value & after_previous
}

/// Whether the offsets of a compacted batch rise and end where the header says; of another, follow each other.
fn offsets_agree(header: &BatchHeader, deltas: &[u32_le]) -> Result<(), BatchError> {
    let (count, last) = (header.record_count, header.last_offset_delta);
    let agree = match deltas.last() {
        None => last == count - 1,
        Some(end) => {
            let rising =
                deltas.windows(2).fold(true, |ok, pair| ok & (pair[0].to_native() < pair[1].to_native()));
            deltas.len() == count as usize && rising && *end == last
        }
    };
    if agree { Ok(()) } else { Err(BatchError::Offsets) }
}

/// A null bitmap: absent, or a bit for every record.
fn bitmap(bits: &[u8], count: usize) -> Result<&[u8], BatchError> {
    let agrees = bits.is_empty() || bits.len() == count.div_ceil(8);
    if agrees { Ok(bits) } else { Err(BatchError::Columns) }
}

#[inline]
fn is_set(bits: &[u8], index: usize) -> bool {
    !bits.is_empty() && bits[index / 8] & (1 << (index % 8)) != 0
}

/// The smallest and the largest item, starting from the type's largest.
fn range<T: Ord + Copy + Default>(items: impl Iterator<Item = T>, largest: T) -> (T, T) {
    items.fold((largest, T::default()), |(min, max), item| (min.min(item), max.max(item)))
}
