//! A disk that answers at once and keeps nothing, memory of the product's sizes, and batches.

use corelog_model::batch::{AlignedVec, BatchBuilder, Codec, RecordRef, Seal};
use corelog_model::time::Now;
use corelog_model::{Block, BlockId, LogId, ProducerId, TopicId};
use corelog_storage::{DiskCompletion, DiskOp, DurableMethod, LogConfig, Memory, Preparation};

/// Bytes of the live window: more than the caches hold, as in the product.
const WINDOW_BYTES: usize = 256 << 20;
const WINDOW_BLOCK_BYTES: usize = 4 << 20;
/// Bytes of a record's value.
const VALUE_BYTES: usize = 1000;

/// A time that stands still: nothing is due by itself.
pub(crate) const NOW: Now = Now { mono_us: 1_000_000, wall_us: 1_700_000_000_000_000 };

/// The product's log, without checkpoints and beacons.
pub(crate) fn config() -> LogConfig {
    LogConfig {
        extent_bytes: 1 << 30,
        preparation: Preparation::Unwritten,
        durable_method: DurableMethod::Dsync,
        frames_in_flight: 4,
        checkpoint_bytes: u64::MAX,
        ..LogConfig::new(LogId(0), 0xC0_FFEE)
    }
}

pub(crate) fn memory(config: &LogConfig) -> Memory {
    let blocks = (WINDOW_BYTES / WINDOW_BLOCK_BYTES) as u32;
    let window = (0..blocks).map(|id| Block::heap(BlockId(id), WINDOW_BLOCK_BYTES)).collect();
    let cold = vec![Block::heap(BlockId(blocks), config.max_frame_bytes() + 8192)];
    let page = Block::heap(BlockId(blocks + 1), 4096);
    let (settle, scrub, copy) = (Vec::new(), None, corelog_uring::copy::past_cache);
    let mut memory = Memory { window, cold, settle, scrub, page, copy };
    // Touched, so that no page is faulted in while it is measured.
    memory.window.iter_mut().for_each(|block| block.bytes_mut().fill(1));
    memory
}

/// What the disk answers: everything that was asked was done.
pub(crate) fn done(op: DiskOp) -> DiskCompletion {
    let id = op.id();
    let (result, block) = match op {
        DiskOp::WriteFrame { source, .. } | DiskOp::WriteSuperblock { source, .. } => (source.length, None),
        DiskOp::Read { length, into, .. } => (length, Some(into)),
        _ => (0, None),
    };
    DiskCompletion { id, result: Ok(result), block }
}

/// A sealed batch of about this many bytes.
pub(crate) fn batch(topic: TopicId, partition: u32, bytes: usize) -> AlignedVec<16> {
    let mut builder = BatchBuilder::new(bytes);
    let value = [7; VALUE_BYTES];
    let record = RecordRef { key: None, value: Some(&value), timestamp_us: 1, headers: &[] };
    while builder.estimated_bytes() + VALUE_BYTES + 32 < bytes {
        builder.push(record).expect("room for the record");
    }
    let (producer_id, codec) = (ProducerId::NONE, Codec::None);
    let seal = Seal { topic, partition, producer_id, producer_epoch: 0, base_sequence: 0, codec };
    let mut out = AlignedVec::new();
    builder.seal(&seal, &mut out).expect("sealed");
    out
}
