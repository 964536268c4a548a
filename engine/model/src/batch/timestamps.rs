//! The timestamps of an open batch. Most batches begin with their smallest one and span less than 71 minutes: their
//! deltas are written as they come. For all others the timestamps themselves are kept until the end.
//!
//! **Invariant:** as long as `kept` is empty, the first timestamp is the smallest and every delta fits 32 bits.

use super::columns::Columns;

#[derive(Debug, Default)]
pub(super) struct Timestamps {
    min_us: u64,
    max_us: u64,
    /// After the first one, one a record, unless `kept`.
    deltas: Vec<u32>,
    kept: Vec<u64>,
}

impl Timestamps {
    #[inline]
    pub(super) fn push(&mut self, timestamp_us: u64) {
        if self.deltas.is_empty() && self.kept.is_empty() {
            (self.min_us, self.max_us) = (timestamp_us, timestamp_us);
        }
        let delta = timestamp_us.checked_sub(self.min_us).and_then(|delta| u32::try_from(delta).ok());
        match delta {
            Some(delta) if self.kept.is_empty() => self.deltas.push(delta),
            _ => self.keep(timestamp_us),
        }
        self.max_us = self.max_us.max(timestamp_us);
    }

    /// The timestamp does not fit what is there.
    #[cold]
    fn keep(&mut self, timestamp_us: u64) {
        let first_us = self.min_us;
        self.kept.extend(self.deltas.drain(..).map(|delta| first_us + u64::from(delta)));
        self.kept.push(timestamp_us);
        self.min_us = self.min_us.min(timestamp_us);
    }

    /// Whether deltas need 64 bits.
    pub(super) fn is_wide(&self) -> bool {
        self.max_us - self.min_us > u64::from(u32::MAX)
    }

    /// The same if `timestamp_us` were in as well.
    pub(super) fn is_wide_with(&self, timestamp_us: u64) -> bool {
        let is_first = self.deltas.is_empty() && self.kept.is_empty();
        let span = self.max_us.max(timestamp_us) - self.min_us.min(timestamp_us);
        !is_first && span > u64::from(u32::MAX)
    }

    pub(super) const fn min_us(&self) -> u64 {
        self.min_us
    }

    pub(super) const fn max_us(&self) -> u64 {
        self.max_us
    }

    /// Fills the column of deltas; whether it is the wide one. May be called again if the batch could not be sealed.
    pub(super) fn finish(&mut self, columns: &mut Columns) -> bool {
        let (base_us, wide) = (self.min_us, self.is_wide());
        columns.wide_timestamp_delta.clear();
        columns.timestamp_delta.clear();
        let deltas = self.kept.iter().map(|us| us - base_us);
        if wide {
            columns.wide_timestamp_delta.extend(deltas);
        } else if self.kept.is_empty() {
            columns.timestamp_delta.extend_from_slice(&self.deltas);
        } else {
            // The range is at most `u32::MAX`, so nothing is cut off.
            columns.timestamp_delta.extend(deltas.map(|delta| delta as u32));
        }
        wide
    }

    /// Forgets all, keeps the memory.
    pub(super) fn clear(&mut self) {
        let Self { min_us, max_us, deltas, kept } = self;
        (*min_us, *max_us) = (0, 0);
        deltas.clear();
        kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(timestamps_us: &[u64]) -> (bool, Vec<u64>, u64, u64) {
        let (mut timestamps, mut columns) = (Timestamps::default(), Columns::default());
        for &timestamp_us in timestamps_us {
            let expected = timestamps.is_wide_with(timestamp_us);
            timestamps.push(timestamp_us);
            assert_eq!(timestamps.is_wide(), expected, "asked before, true after");
        }
        let wide = timestamps.finish(&mut columns);
        let narrow = columns.timestamp_delta.iter().map(|delta| u64::from(*delta));
        let deltas = columns.wide_timestamp_delta.iter().copied().chain(narrow).collect();
        (wide, deltas, timestamps.min_us(), timestamps.max_us())
    }

    #[test]
    fn any_order_and_span_comes_out_as_deltas_from_the_smallest() {
        const NARROW: u64 = u32::MAX as u64;
        let cases: [&[u64]; 7] = [
            &[5],
            &[5, 5, 9],
            &[5, 4, 9],
            &[0, NARROW],
            &[0, NARROW + 1],
            &[1, NARROW + 1, 0],
            &[u64::MAX, 0, 7],
        ];
        for case in cases {
            let (min, max) = (*case.iter().min().expect("some"), *case.iter().max().expect("some"));
            let deltas = case.iter().map(|us| us - min).collect();
            assert_eq!(finished(case), (max - min > NARROW, deltas, min, max), "{case:?}");
        }
    }
}
