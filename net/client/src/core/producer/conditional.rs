//! Conditional appends: several records as one batch, if the partition ends where their writer thinks it does.

use std::sync::Arc;

use corelog_model::batch::RecordRef;

use super::{Producer, weight};
use crate::core::effects::Effects;
use crate::core::outcome::Outcome;
use crate::error::TrySendError;

impl Producer {
    /// Takes a copy of all the records as one batch that is appended only if the partition then ends at
    /// `expected_offset`, or changes nothing but that the open batch before it is closed.
    pub(crate) fn push_at(
        &mut self,
        at: usize,
        expected_offset: u64,
        records: &[RecordRef<'_>],
        now_us: u64,
        effects: &mut Effects,
    ) -> Result<Arc<Outcome>, TrySendError> {
        let weight: usize = records.iter().map(weight).sum();
        if self.buffered + weight > self.config.max_buffer_bytes && self.buffered > 0 {
            return Err(if self.closed.is_some() { TrySendError::Closed } else { TrySendError::Full });
        }
        self.close_batch(at, now_us, effects);
        self.open(at, now_us)?;
        let open = self.lanes[at].open.as_mut().expect("just opened");
        if records.iter().any(|record| open.builder.push(*record).is_err()) {
            open.builder.clear();
            self.abandon(at);
            return Err(TrySendError::RecordTooLarge);
        }
        open.weight = weight;
        open.expected_offset = Some(expected_offset);
        let outcome = Arc::clone(&open.outcome);
        self.buffered += weight;
        self.close_batch(at, now_us, effects);
        Ok(outcome)
    }
}
