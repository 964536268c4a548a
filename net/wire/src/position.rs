//! The reply to ReadPositions: how far those who read a partition under a name have come.

use corelog_model::Term;

use crate::fault::WireError;
use crate::reader::Reader;
use crate::writer::Writer;

/// Fewest bytes a position takes: item length, flags, epoch, offset, time, two empty texts.
const POSITION_LEAST_BYTES: usize = 4 + 4 + 4 + 8 + 8 + 2 + 2;

const REPLY_HAS_MORE: u32 = 1 << 0;
const POSITION_NAMES_EPOCH: u32 = 1 << 0;

/// Positions of a partition, and what they are to be held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionsReply<'a> {
    /// The oldest offset kept.
    pub log_start: u64,
    /// The offset after the last visible record.
    pub high_watermark: u64,
    /// Whether there are more behind the last one: to be asked for by its name.
    pub more: bool,
    /// By name, in the order of its bytes.
    pub positions: Vec<PositionView<'a>>,
}

/// How far somebody has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionView<'a> {
    /// The name.
    pub name: &'a str,
    /// The next offset to be read.
    pub offset: u64,
    /// The epoch of what was read before it, where that was said.
    pub leader_epoch: Option<Term>,
    /// When it was committed, in microseconds since 1970.
    pub commit_timestamp_us: u64,
    /// The client's note.
    pub metadata: &'a str,
}

impl<'a> PositionsReply<'a> {
    pub(crate) fn decode(mut head: Reader<'a>) -> Result<Self, WireError> {
        let more = head.flags(REPLY_HAS_MORE, "positions flags")? != 0;
        let log_start = head.u64("log_start")?;
        let high_watermark = head.u64("high_watermark")?;
        let count = head.count(POSITION_LEAST_BYTES, "positions")?;
        let positions = (0..count).map(|_| PositionView::decode(&mut head)).collect::<Result<Vec<_>, _>>()?;
        head.end()?;
        if more && positions.is_empty() {
            return Err(WireError::BadValue { field: "positions flags" });
        }
        Ok(Self { log_start, high_watermark, more, positions })
    }

    pub(crate) fn encode(&self, head: &mut Writer<'_>) {
        head.u32(if self.more { REPLY_HAS_MORE } else { 0 });
        head.u64(self.log_start);
        head.u64(self.high_watermark);
        head.u32(self.positions.len() as u32);
        for position in &self.positions {
            head.item(|item| {
                item.u32(if position.leader_epoch.is_some() { POSITION_NAMES_EPOCH } else { 0 });
                item.u32(position.leader_epoch.unwrap_or_default().0);
                item.u64(position.offset);
                item.u64(position.commit_timestamp_us);
                item.text(position.name);
                item.text(position.metadata);
            });
        }
    }
}

impl<'a> PositionView<'a> {
    fn decode(head: &mut Reader<'a>) -> Result<Self, WireError> {
        let mut item = head.item("position")?;
        let named = item.flags(POSITION_NAMES_EPOCH, "position flags")? != 0;
        let epoch = Term(item.u32("leader_epoch")?);
        let offset = item.u64("offset")?;
        let commit_timestamp_us = item.u64("commit_timestamp_us")?;
        let name = item.text("name")?;
        let metadata = item.text("metadata")?;
        item.end()?;
        let leader_epoch = named.then_some(epoch);
        Ok(Self { name, offset, leader_epoch, commit_timestamp_us, metadata })
    }
}
