//! Deduplication: what each producer last appended to each partition.
//!
//! Five batches are remembered per (group, producer), so that a retry is recognised while up to five requests are in
//! flight. The state is rebuilt from batch headers and checkpoints; it never says more than the log does, because it
//! changes only together with an append. Bounded per shard: the pair that was idle longest goes first, after
//! [`ProducerLimits::expiry_us`] in any case, and not before [`ProducerLimits::keep_us`] (then new producers are
//! refused): forgetting a live producer would let its retries in twice. So idle time is counted by the monotonic clock;
//! the wall clock, which somebody may set, only says what was idle before a start, and is believed when others were at
//! work for [`ProducerLimits::keep_us`] meanwhile, or the shard has run for so long since.

use std::collections::HashMap;

use corelog_model::{GroupId, Now, ProducerId};

use crate::refusal::{Bounded, Refusal};

/// Batches remembered per pair: what a client may have in flight.
pub(crate) const REMEMBERED: usize = 5;
const NONE: u32 = u32::MAX;

/// Bounds of the producer state.
#[derive(Clone, Copy, Debug)]
pub struct ProducerLimits {
    /// Pairs of producer and partition.
    pub pairs: u32,
    /// Idle pairs are forgotten after this time, in microseconds.
    pub expiry_us: u64,
    /// A pair is not pushed out by another before it was idle for this long, in microseconds.
    pub keep_us: u64,
}

/// One remembered batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// Sequence of its first record.
    pub(crate) first: u32,
    /// Sequence of its last record.
    pub(crate) last: u32,
    /// Offset of its first record.
    pub(crate) base_offset: u64,
    /// When it was appended, in microseconds since 1970.
    pub(crate) append_us: u64,
    /// The frame it is in; 0 for one that an earlier start wrote.
    pub(crate) frame: u64,
}

/// What identifies a batch to its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer: ProducerId,
    pub(crate) epoch: u16,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// Whether a batch is to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fresh,
    Duplicate(Remembered),
}

/// The state of one pair, as checkpoints carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerState {
    /// The partition's group.
    pub(crate) group: GroupId,
    /// The producer.
    pub(crate) producer: ProducerId,
    /// Its highest epoch seen here.
    pub(crate) epoch: u16,
    /// The next sequence.
    pub(crate) next_sequence: u32,
    /// Index of the group's entry that changed this state last: replay skips what is older.
    pub(crate) index: u64,
    /// When it was used last, by [`Producers::time_us`].
    pub(crate) last_us: u64,
    /// How many of `batches` are set, the newest last.
    pub(crate) count: u8,
    /// The remembered batches.
    pub(crate) batches: [Remembered; REMEMBERED],
}

#[derive(Debug)]
struct Pair {
    state: ProducerState,
    /// Used after the last checkpoint.
    changed: bool,
    older: u32,
    newer: u32,
}

/// All pairs of a shard, in a list from the longest idle to the latest used.
#[derive(Debug)]
pub(crate) struct Producers {
    limits: ProducerLimits,
    /// When the shard started.
    started: Now,
    by_key: HashMap<(GroupId, ProducerId), u32>,
    pairs: Vec<Pair>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
}

/// The sequence `count` records after `sequence`. Sequences count records and wrap.
pub(crate) fn sequence_after(sequence: u32, count: u32) -> u32 {
    sequence.wrapping_add(count)
}

fn out_of_order(expected: u32, batch: Identity) -> Refusal {
    Refusal::OutOfOrderSequence { expected, actual: batch.first }
}

impl Producers {
    pub(crate) fn new(limits: ProducerLimits) -> Self {
        Self {
            limits,
            started: Now::default(),
            by_key: HashMap::new(),
            pairs: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    /// The log has been replayed: what it says about times to come was written under a clock that was wrong.
    pub(crate) fn started(&mut self, now: Now) {
        self.started = now;
        for pair in &mut self.pairs {
            pair.state.last_us = pair.state.last_us.min(now.wall_us);
        }
    }

    /// Microseconds since 1970 as the wall clock had them at the start, going on by the monotonic clock.
    pub(crate) fn time_us(&self, now: Now) -> u64 {
        self.started.wall_us + now.mono_us.saturating_sub(self.started.mono_us)
    }

    /// Whether a pair was idle for so long, and others were at work for long enough, before the start or since, to show
    /// that this is not the clock's doing.
    fn is_idle(&self, pair: &Pair, idle_us: u64, now: Now) -> bool {
        let running_us = now.mono_us.saturating_sub(self.started.mono_us);
        let newest = self.pairs.get(self.newest as usize).map_or(0, |pair| pair.state.last_us);
        let others_us = newest.min(self.started.wall_us).saturating_sub(pair.state.last_us);
        running_us.max(others_us) >= self.limits.keep_us
            && pair.state.last_us.saturating_add(idle_us) <= self.time_us(now)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether the batch is the next of its producer, or one that is already there.
    pub(crate) fn judge(&self, group: GroupId, batch: Identity) -> Result<Verdict, Refusal> {
        let Some(&at) = self.by_key.get(&(group, batch.producer)) else {
            return if batch.first == 0 { Ok(Verdict::Fresh) } else { Err(Refusal::UnknownProducerId) };
        };
        let state = &self.pairs[at as usize].state;
        if batch.epoch < state.epoch {
            return Err(Refusal::FencedProducerEpoch { current: state.epoch });
        }
        if batch.epoch > state.epoch {
            return if batch.first == 0 { Ok(Verdict::Fresh) } else { Err(out_of_order(0, batch)) };
        }
        let same = |known: &&Remembered| known.first == batch.first && known.last == batch.last;
        if let Some(known) = state.batches[..usize::from(state.count)].iter().find(same) {
            return Ok(Verdict::Duplicate(*known));
        }
        if batch.first == state.next_sequence {
            return Ok(Verdict::Fresh);
        }
        Err(out_of_order(state.next_sequence, batch))
    }

    /// Whether one more pair fits, if `key` is a new one; makes room when the longest idle pair may go.
    pub(crate) fn reserve(&mut self, group: GroupId, producer: ProducerId, now: Now) -> Result<(), Refusal> {
        if self.by_key.contains_key(&(group, producer)) || self.len() < self.limits.pairs as usize {
            return Ok(());
        }
        match self.pairs.get(self.oldest as usize) {
            Some(pair) if self.is_idle(pair, self.limits.keep_us, now) => {
                self.remove(self.oldest);
                Ok(())
            }
            _ => Err(Refusal::TooMany { what: Bounded::Producers, max: self.limits.pairs }),
        }
    }

    /// The batch was appended as entry `index` of its group. Entries that the state already holds change nothing:
    /// that is how replay after a checkpoint works.
    pub(crate) fn appended(
        &mut self,
        group: GroupId,
        index: u64,
        batch: Identity,
        at: Remembered,
        time_us: u64,
    ) {
        let slot = self.touch(group, batch.producer, time_us);
        let state = &mut self.pairs[slot as usize].state;
        if index <= state.index {
            return;
        }
        if batch.epoch != state.epoch {
            state.epoch = batch.epoch;
            state.count = 0;
        }
        if usize::from(state.count) == REMEMBERED {
            state.batches.copy_within(1.., 0);
            state.count -= 1;
        }
        state.batches[usize::from(state.count)] = at;
        state.count += 1;
        state.next_sequence = sequence_after(batch.last, 1);
        state.index = index;
    }

    /// The first batch of a producer was refused: its later ones, already on their way, must not look like those
    /// of a producer that expired.
    pub(crate) fn refused(&mut self, group: GroupId, batch: Identity, now: Now) {
        let known = self.by_key.contains_key(&(group, batch.producer));
        if known || batch.first != 0 || self.reserve(group, batch.producer, now).is_err() {
            return;
        }
        let slot = self.touch(group, batch.producer, self.time_us(now));
        self.pairs[slot as usize].state.epoch = batch.epoch;
    }

    /// Puts the state of a checkpoint back.
    pub(crate) fn restore(&mut self, state: ProducerState) {
        let slot = self.touch(state.group, state.producer, state.last_us);
        self.pairs[slot as usize].state = state;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Forgets the pairs that were idle too long.
    pub(crate) fn expire(&mut self, now: Now) {
        while let Some(pair) = self.pairs.get(self.oldest as usize)
            && self.is_idle(pair, self.limits.expiry_us, now)
        {
            self.remove(self.oldest);
        }
    }

    /// Forgets all pairs of deleted partitions, in one pass however many these are.
    pub(crate) fn drop_groups(&mut self, is_gone: impl Fn(GroupId) -> bool) {
        let mut at = self.oldest;
        while at != NONE {
            let pair = &self.pairs[at as usize];
            let newer = pair.newer;
            if is_gone(pair.state.group) {
                self.remove(at);
            }
            at = newer;
        }
    }

    /// All states, the longest idle first: the order in which `restore` rebuilds the same list.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ProducerState> {
        self.iter_from(self.oldest)
    }

    fn iter_from(&self, mut at: u32) -> impl Iterator<Item = &ProducerState> {
        std::iter::from_fn(move || {
            let pair = self.pairs.get(at as usize)?;
            at = pair.newer;
            Some(&pair.state)
        })
    }

    /// The states used after the last checkpoint, the longest idle first. They are the newest of the list, since
    /// every use makes a pair the newest.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &ProducerState> {
        let (mut at, mut first) = (self.newest, NONE);
        while let Some(pair) = self.pairs.get(at as usize).filter(|pair| pair.changed) {
            first = at;
            at = pair.older;
        }
        self.iter_from(first)
    }

    /// A checkpoint holds all that is here.
    pub(crate) fn checkpointed(&mut self) {
        let mut at = self.newest;
        while let Some(pair) = self.pairs.get_mut(at as usize).filter(|pair| pair.changed) {
            pair.changed = false;
            at = pair.older;
        }
    }

    /// Checkpoints may bring back pairs that were forgotten after them: the bound holds again.
    pub(crate) fn trim(&mut self) {
        while self.len() > self.limits.pairs as usize {
            self.remove(self.oldest);
        }
    }

    /// Finds or adds the pair and makes it the newest.
    fn touch(&mut self, group: GroupId, producer: ProducerId, time_us: u64) -> u32 {
        let slot = match self.by_key.get(&(group, producer)) {
            Some(&slot) => {
                self.unlink(slot);
                slot
            }
            None => self.add(group, producer),
        };
        let newest = self.newest;
        let pair = &mut self.pairs[slot as usize];
        // Batches are replayed with the wall clock's times: one that was set back must not make this pair look idle.
        pair.state.last_us = pair.state.last_us.max(time_us);
        pair.changed = true;
        (pair.older, pair.newer) = (newest, NONE);
        match newest {
            NONE => self.oldest = slot,
            _ => self.pairs[newest as usize].newer = slot,
        }
        self.newest = slot;
        slot
    }

    fn add(&mut self, group: GroupId, producer: ProducerId) -> u32 {
        let state = ProducerState {
            group,
            producer,
            epoch: 0,
            next_sequence: 0,
            index: 0,
            last_us: 0,
            count: 0,
            batches: [Remembered::default(); REMEMBERED],
        };
        let pair = Pair { state, changed: true, older: NONE, newer: NONE };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.pairs[slot as usize] = pair;
                slot
            }
            None => {
                self.pairs.push(pair);
                u32::try_from(self.pairs.len() - 1).expect("pairs are bounded")
            }
        };
        self.by_key.insert((group, producer), slot);
        slot
    }

    fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        let state = &self.pairs[slot as usize].state;
        self.by_key.remove(&(state.group, state.producer));
        self.free.push(slot);
    }

    fn unlink(&mut self, slot: u32) {
        let Pair { older, newer, .. } = self.pairs[slot as usize];
        match older {
            NONE => self.oldest = newer,
            _ => self.pairs[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            _ => self.pairs[newer as usize].older = older,
        }
    }

    /// The list and the map name the same pairs, and the bound holds.
    pub(crate) fn check(&self) {
        let mut count = 0;
        for state in self.iter() {
            assert!(self.by_key.contains_key(&(state.group, state.producer)), "a listed pair is in the map");
            assert!(usize::from(state.count) <= REMEMBERED);
            count += 1;
        }
        assert_eq!(count, self.by_key.len(), "every pair of the map is listed");
        assert_eq!(count + self.free.len(), self.pairs.len(), "a pair is listed or free");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(16);
    const LIMITS: ProducerLimits = ProducerLimits { pairs: 3, expiry_us: 1000, keep_us: 100 };

    fn batch(producer: u64, epoch: u16, first: u32, count: u32) -> Identity {
        Identity { producer: ProducerId(producer), epoch, first, last: first + count - 1 }
    }

    fn at(time_us: u64) -> Now {
        Now { mono_us: time_us, wall_us: time_us }
    }

    struct Log {
        producers: Producers,
        index: u64,
        offset: u64,
    }

    impl Log {
        /// Of a shard that started at time 0.
        fn new() -> Self {
            Self { producers: Producers::new(LIMITS), index: 0, offset: 0 }
        }

        fn offer(&mut self, batch: Identity, time_us: u64) -> Result<Verdict, Refusal> {
            let verdict = self.producers.judge(GROUP, batch)?;
            if verdict == Verdict::Fresh {
                self.producers.reserve(GROUP, batch.producer, at(time_us))?;
                self.index += 1;
                let (first, last, base_offset) = (batch.first, batch.last, self.offset);
                let at = Remembered { first, last, base_offset, append_us: time_us, frame: 1 };
                self.producers.appended(GROUP, self.index, batch, at, time_us);
                self.offset += u64::from(batch.last - batch.first) + 1;
            }
            self.producers.check();
            Ok(verdict)
        }
    }

    #[test]
    fn the_last_five_batches_are_recognised_and_an_older_one_is_refused() {
        let mut log = Log::new();
        for n in 0..6 {
            assert_eq!(log.offer(batch(1, 0, n * 10, 10), 1), Ok(Verdict::Fresh));
        }
        for n in 1..6 {
            let Ok(Verdict::Duplicate(known)) = log.offer(batch(1, 0, n * 10, 10), 1) else {
                panic!("batch {n}")
            };
            assert_eq!(known.base_offset, u64::from(n) * 10);
        }
        assert_eq!(
            log.offer(batch(1, 0, 0, 10), 1),
            Err(Refusal::OutOfOrderSequence { expected: 60, actual: 0 })
        );
        assert_eq!(
            log.offer(batch(1, 0, 50, 9), 1),
            Err(Refusal::OutOfOrderSequence { expected: 60, actual: 50 })
        );
    }

    #[test]
    fn a_gap_stops_the_pipeline_until_the_missing_batch_comes() {
        let mut log = Log::new();
        log.offer(batch(1, 0, 0, 5), 1).unwrap();
        assert_eq!(
            log.offer(batch(1, 0, 10, 5), 1),
            Err(Refusal::OutOfOrderSequence { expected: 5, actual: 10 })
        );
        assert_eq!(
            log.offer(batch(1, 0, 15, 5), 1),
            Err(Refusal::OutOfOrderSequence { expected: 5, actual: 15 })
        );
        assert_eq!(log.offer(batch(1, 0, 5, 5), 1), Ok(Verdict::Fresh));
        assert_eq!(log.offer(batch(1, 0, 10, 5), 1), Ok(Verdict::Fresh));
    }

    #[test]
    fn a_refused_first_batch_does_not_make_its_followers_look_expired() {
        let mut log = Log::new();
        log.producers.refused(GROUP, batch(1, 0, 0, 5), at(1));
        assert_eq!(
            log.offer(batch(1, 0, 5, 5), 1),
            Err(Refusal::OutOfOrderSequence { expected: 0, actual: 5 })
        );
        assert_eq!(log.offer(batch(1, 0, 0, 5), 1), Ok(Verdict::Fresh));
        assert_eq!(log.offer(batch(2, 0, 5, 5), 1), Err(Refusal::UnknownProducerId));
    }

    #[test]
    fn a_higher_epoch_starts_at_zero_and_fences_the_lower_one() {
        let mut log = Log::new();
        log.offer(batch(1, 0, 0, 5), 1).unwrap();
        assert_eq!(
            log.offer(batch(1, 1, 5, 5), 1),
            Err(Refusal::OutOfOrderSequence { expected: 0, actual: 5 })
        );
        assert_eq!(log.offer(batch(1, 1, 0, 5), 1), Ok(Verdict::Fresh));
        assert_eq!(log.offer(batch(1, 0, 5, 5), 1), Err(Refusal::FencedProducerEpoch { current: 1 }));
        assert_eq!(log.offer(batch(1, 1, 5, 5), 1), Ok(Verdict::Fresh));
    }

    #[test]
    fn sequences_wrap() {
        let mut log = Log::new();
        log.offer(batch(1, 0, 0, 1), 1).unwrap();
        let slot = log.producers.by_key[&(GROUP, ProducerId(1))];
        log.producers.pairs[slot as usize].state.next_sequence = u32::MAX - 1;
        let across = Identity { last: 2, ..batch(1, 0, u32::MAX - 1, 1) };
        assert_eq!(log.producers.judge(GROUP, across), Ok(Verdict::Fresh));
        log.producers.appended(
            GROUP,
            9,
            across,
            Remembered { first: across.first, last: 2, ..Remembered::default() },
            2,
        );
        assert!(matches!(log.producers.judge(GROUP, across), Ok(Verdict::Duplicate(_))));
        assert_eq!(log.producers.judge(GROUP, batch(1, 0, 3, 2)), Ok(Verdict::Fresh));
    }

    /// A full table refuses newcomers rather than forget a producer whose retries may still be under way.
    #[test]
    fn a_full_table_forgets_only_pairs_that_were_idle_long_enough() {
        let mut log = Log::new();
        for producer in 1..=3 {
            log.offer(batch(producer, 0, 0, 1), 10 * producer).unwrap();
        }
        assert!(matches!(log.offer(batch(4, 0, 0, 1), 50), Err(Refusal::TooMany { .. })));
        assert_eq!(log.offer(batch(4, 0, 0, 1), 110), Ok(Verdict::Fresh));
        assert_eq!(log.offer(batch(1, 0, 1, 1), 111), Err(Refusal::UnknownProducerId));
        assert!(matches!(log.offer(batch(2, 0, 0, 1), 112), Ok(Verdict::Duplicate(_))));
    }

    #[test]
    fn idle_pairs_expire_and_a_dropped_group_takes_its_own() {
        let mut log = Log::new();
        log.offer(batch(1, 0, 0, 1), 10).unwrap();
        log.offer(batch(2, 0, 0, 1), 500).unwrap();
        log.producers.expire(at(1010));
        assert_eq!(log.offer(batch(1, 0, 1, 1), 1010), Err(Refusal::UnknownProducerId));
        assert!(log.offer(batch(2, 0, 1, 1), 1010).is_ok());
        log.producers.drop_groups(|group| group == GROUP);
        assert_eq!(log.producers.len(), 0);
        log.producers.check();
    }

    /// A live producer's retries must find its state, whatever somebody does to the wall clock, also between two runs.
    #[test]
    fn a_wall_clock_that_is_set_makes_nobody_look_idle() {
        let mut log = Log::new();
        log.offer(batch(1, 0, 0, 1), 10).unwrap();
        let set = |mono_us, wall_us| Now { mono_us, wall_us };
        log.producers.expire(set(500, 1_000_000));
        assert!(matches!(log.offer(batch(1, 0, 0, 1), 500), Ok(Verdict::Duplicate(_))));

        // A start under a clock that is far ahead of the one that wrote the log.
        log.producers.started(set(0, 2_000_000));
        log.producers.expire(set(LIMITS.keep_us - 1, 2_000_000));
        assert!(matches!(log.offer(batch(1, 0, 0, 1), 500), Ok(Verdict::Duplicate(_))));
        log.producers.expire(set(LIMITS.keep_us, 2_000_000));
        assert_eq!(log.producers.len(), 0, "it had time to show itself");

        // And under one that is far behind: its times to come do not keep a pair for ever.
        log.offer(batch(2, 0, 0, 1), 2_000_000).unwrap();
        log.producers.started(set(0, 1_000));
        log.producers.expire(set(LIMITS.expiry_us - 1, 0));
        assert_eq!(log.producers.len(), 1);
        log.producers.expire(set(LIMITS.expiry_us, 0));
        assert_eq!(log.producers.len(), 0);
    }

    #[test]
    fn replaying_entries_the_checkpoint_already_holds_changes_nothing() {
        let mut log = Log::new();
        log.offer(batch(1, 0, 0, 5), 1).unwrap();
        log.offer(batch(1, 0, 5, 5), 2).unwrap();
        let state = *log.producers.iter().next().unwrap();
        let mut restored = Producers::new(LIMITS);
        restored.restore(state);
        restored.appended(GROUP, 1, batch(1, 0, 0, 5), Remembered::default(), 0);
        assert_eq!(*restored.iter().next().unwrap(), state);
    }
}
