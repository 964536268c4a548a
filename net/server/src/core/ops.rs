//! The op slab: what each operation in flight was for.
//!
//! A key is what io_uring carries as `user_data`: kind 8 bits, generation 24, slot 32. **Invariants:** a slot is
//! reused only after its completion was taken; the generation rises with each use, so a completion that comes
//! twice or late is recognised and never taken for another's; never more slots than the ring has. Does not allocate.

use corelog_uring::Key;

const GENERATION_MASK: u32 = (1 << 24) - 1;

/// Operations in flight with what they were for.
#[derive(Debug)]
pub(crate) struct OpSlab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    live: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    kind: u8,
    op: Option<T>,
}

impl<T> OpSlab<T> {
    /// An empty slab for `capacity` operations: the slots of the ring.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity), live: 0, capacity }
    }

    /// Keeps `op` until its completion and gives the key to submit it under. `kind` is for whoever reads traces.
    pub(crate) fn insert(&mut self, kind: u8, op: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            assert!(self.slots.len() < self.capacity, "the ring has a slot for every operation we can have");
            self.slots.push(Slot { generation: 0, kind: 0, op: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.op.is_none(), "a free slot holds nothing");
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.kind = kind;
        slot.op = Some(op);
        self.live += 1;
        Key::new(kind, slot.generation, index)
    }

    /// What the operation was for; `None` when the key is not, or no longer, in flight.
    pub(crate) fn take(&mut self, of: Key) -> Option<T> {
        let slot = self.slots.get_mut(of.slot() as usize)?;
        if Key::new(slot.kind, slot.generation, of.slot()) != of {
            return None;
        }
        let op = slot.op.take()?;
        self.free.push(of.slot());
        self.live -= 1;
        Some(op)
    }

    /// Operations in flight.
    pub(crate) const fn live(&self) -> usize {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_that_comes_twice_is_not_taken_for_the_next_user_of_its_slot() {
        let mut ops = OpSlab::new(2);
        let first = ops.insert(1, "first");
        assert_eq!(ops.take(first), Some("first"));
        let second = ops.insert(1, "second");
        assert_ne!(first, second);
        assert_eq!(first.slot(), second.slot(), "the slot is used again");
        assert_eq!(ops.take(first), None, "late");
        assert_eq!(ops.take(second), Some("second"));
        assert_eq!(ops.take(second), None, "twice");
        assert_eq!(ops.live(), 0);
    }

    #[test]
    fn keys_that_were_never_given_out_are_unknown() {
        let mut ops = OpSlab::new(1);
        let given = ops.insert(3, ());
        for wrong in [0, u64::MAX, given.0 + 1, given.0 ^ (1 << 60), given.0 ^ (1 << 40)] {
            assert_eq!(ops.take(Key(wrong)), None, "{wrong:x}");
        }
        assert_eq!(ops.live(), 1);
    }

    #[test]
    fn generations_wrap_within_their_bits() {
        let mut ops = OpSlab::new(1);
        let first = ops.insert(9, 0);
        ops.take(first).expect("in flight");
        ops.slots[0].generation = GENERATION_MASK;
        let wrapped = ops.insert(9, 1);
        assert_eq!(wrapped.kind(), 9, "the kind is untouched by the carry");
        assert_eq!(ops.take(wrapped), Some(1));
    }
}
