//! Reads the fields of a head, in order, never beyond its end.

use corelog_model::Durability;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::fault::{Field, WireError};

/// What is left of a head, or of an item of a list.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read: the bound of every count.
    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    fn array<const N: usize>(&mut self, field: Field) -> Result<[u8; N], WireError> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated { field })?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn u8(&mut self, field: Field) -> Result<u8, WireError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, field: Field) -> Result<u16, WireError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: Field) -> Result<u32, WireError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: Field) -> Result<u64, WireError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self, field: Field) -> Result<u128, WireError> {
        self.array(field).map(u128::from_le_bytes)
    }

    /// Flag bits, of which only `known` have a meaning in this version.
    pub(crate) fn flags(&mut self, known: u32, field: Field) -> Result<u32, WireError> {
        let flags = self.u32(field)?;
        if flags & !known == 0 { Ok(flags) } else { Err(WireError::BadValue { field }) }
    }

    pub(crate) fn bytes(&mut self, count: usize, field: Field) -> Result<&'a [u8], WireError> {
        let (first, rest) = self.rest.split_at_checked(count).ok_or(WireError::Truncated { field })?;
        self.rest = rest;
        Ok(first)
    }

    /// Text after its length in 16 bits.
    pub(crate) fn text(&mut self, field: Field) -> Result<&'a str, WireError> {
        let count = self.u16(field)?;
        let bytes = self.bytes(usize::from(count), field)?;
        std::str::from_utf8(bytes).map_err(|_| WireError::NotUtf8 { field })
    }

    pub(crate) fn durability(&mut self) -> Result<Durability, WireError> {
        let field = "durability";
        Durability::from_u8(self.u8(field)?).ok_or(WireError::BadValue { field })
    }

    /// An item of a list, after its length in 32 bits: what it holds beyond this version's fields is skipped.
    pub(crate) fn item(&mut self, field: Field) -> Result<Self, WireError> {
        let count = self.u32(field)?;
        self.bytes(count as usize, field).map(Self::new)
    }

    /// A count in 32 bits of list items; a count that the rest cannot hold is refused before room is made.
    pub(crate) fn count(&mut self, item_bytes: usize, field: Field) -> Result<usize, WireError> {
        let count = self.u32(field)? as usize;
        match count.checked_mul(item_bytes) {
            Some(bytes) if bytes <= self.left() => Ok(count),
            _ => Err(WireError::Truncated { field }),
        }
    }

    /// A list of fixed-size elements after its count in 32 bits, read in place.
    pub(crate) fn list<T>(&mut self, field: Field) -> Result<&'a [T], WireError>
    where
        T: FromBytes + Immutable + KnownLayout + Unaligned,
    {
        let count = self.count(size_of::<T>(), field)?;
        let (list, rest) = <[T]>::ref_from_prefix_with_elems(self.rest, count)
            .map_err(|_| WireError::Truncated { field })?;
        self.rest = rest;
        Ok(list)
    }

    /// The tagged fields, up to the end.
    pub(crate) const fn tagged(self) -> Tagged<'a> {
        Tagged { rest: self }
    }

    /// Ends a message without tagged fields of its own: those of newer peers are skipped.
    pub(crate) fn end(self) -> Result<(), WireError> {
        let mut tagged = self.tagged();
        while tagged.next()?.is_some() {}
        Ok(())
    }
}

/// Tagged fields: `{tag u16, length u16, bytes}` until the head ends.
pub(crate) struct Tagged<'a> {
    rest: Reader<'a>,
}

impl<'a> Tagged<'a> {
    /// The next tag with its bytes, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u16, Reader<'a>)>, WireError> {
        if self.rest.left() == 0 {
            return Ok(None);
        }
        let tag = self.rest.u16("tag")?;
        let count = self.rest.u16("tag length")?;
        let bytes = self.rest.bytes(usize::from(count), "tagged field")?;
        Ok(Some((tag, Reader::new(bytes))))
    }
}
