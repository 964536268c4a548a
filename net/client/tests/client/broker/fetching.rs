//! What a reader is answered and pushed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use corelog_client::{ErrorCode, TopicId};
use corelog_model::Term;
use corelog_wire::error::bound;
use corelog_wire::{FrameHeader, Request, Response};
use tokio::sync::mpsc;

use super::subscriptions::Subscription;
use super::{Handles, Shared, answer, refusal};

/// A fetch or a subscription of one partition.
pub(super) struct Fetching {
    place: Option<(TopicId, u32)>,
    offset: u64,
    max_bytes: usize,
    max_wait: Duration,
}

/// What a reader may see at its offset.
struct Seen {
    log_start: u64,
    high_watermark: u64,
    leader_epoch: Term,
    batches: Vec<u8>,
    next_offset: u64,
}

impl Fetching {
    pub(super) fn new(request: &Request<'_>, handles: &Handles) -> Self {
        match *request {
            Request::Fetch { handle, offset, max_bytes, max_wait_us, .. } => {
                let (place, max_bytes) = (handles.get(&handle).copied(), max_bytes as usize);
                Self { place, offset, max_bytes, max_wait: Duration::from_micros(max_wait_us) }
            }
            Request::Subscribe { handle, offset, max_bytes, .. } => {
                let (place, max_bytes) = (handles.get(&handle).copied(), max_bytes as usize);
                Self { place, offset, max_bytes, max_wait: Duration::MAX }
            }
            _ => unreachable!(),
        }
    }

    pub(super) async fn run(
        self,
        shared: Arc<Shared>,
        answers: mpsc::UnboundedSender<Vec<u8>>,
        header: FrameHeader,
    ) {
        let deadline = tokio::time::Instant::now() + self.max_wait;
        loop {
            let news = shared.news.notified();
            let over = tokio::time::Instant::now() >= deadline;
            match self.look(&shared, self.max_bytes) {
                Err(refusal) => return answer(&answers, &header, &refusal),
                Ok(Seen { batches, .. }) if batches.is_empty() && !over => {}
                Ok(Seen { log_start, high_watermark, leader_epoch, batches, .. }) => {
                    let fetched =
                        Response::Fetched { log_start, high_watermark, leader_epoch, batches: &batches };
                    return answer(&answers, &header, &fetched);
                }
            }
            let _ = tokio::time::timeout_at(deadline, news).await;
        }
    }

    /// Pushes as credit allows until the subscription is ended or refused.
    pub(super) async fn push(
        mut self,
        shared: Arc<Shared>,
        answers: mpsc::UnboundedSender<Vec<u8>>,
        header: FrameHeader,
        subscription: Arc<Mutex<Subscription>>,
    ) {
        let mut begun = false;
        {
            let mut store = shared.store.lock().unwrap();
            if store.is_crowded {
                return answer(&answers, &header, &refusal(ErrorCode::TooMany, [bound::SUBSCRIPTIONS, 0]));
            }
            store.subscribed += 1;
        }
        loop {
            let news = shared.news.notified();
            let Subscription { credit, ended } = *subscription.lock().unwrap();
            let seen = match self.look(&shared, self.max_bytes.min(credit.max(1) as usize)) {
                Err(refusal) => return answer(&answers, &header, &refusal),
                Ok(seen) => seen,
            };
            let Seen { log_start, high_watermark, leader_epoch, batches, next_offset } = seen;
            let bytes = if ended || credit <= 0 { &[][..] } else { &batches };
            let pushed =
                Response::Pushed { log_start, high_watermark, leader_epoch, is_last: ended, batches: bytes };
            if ended {
                return answer(&answers, &header, &pushed);
            }
            if !bytes.is_empty() || !begun {
                begun = true;
                if !bytes.is_empty() {
                    self.offset = next_offset;
                    subscription.lock().unwrap().credit -= bytes.len() as i64;
                    shared.store.lock().unwrap().pushed_bytes += bytes.len();
                }
                answer(&answers, &header, &pushed);
                continue;
            }
            news.await;
        }
    }

    fn look(&self, shared: &Shared, max_bytes: usize) -> Result<Seen, Response<'static>> {
        let mut store = shared.store.lock().unwrap();
        if let Some((code, details)) = store.fetch_refusals.pop_front() {
            return Err(refusal(code, details));
        }
        let (topic, partition) = self.place.ok_or_else(|| refusal(ErrorCode::UnknownHandle, [0, 0]))?;
        let leader_epoch = Term(store.term);
        let (log, _) = store.log(topic, partition).map_err(|code| refusal(code, [0, 0]))?;
        let (log_start, high_watermark) = (log.start, log.end);
        if self.offset < log_start || self.offset > high_watermark {
            return Err(refusal(ErrorCode::OffsetOutOfRange, [log_start, high_watermark]));
        }
        let (mut batches, mut next_offset) = (Vec::new(), self.offset);
        for (known, bytes) in log.batches.iter().filter(|(known, _)| known.next_offset() > self.offset) {
            if !batches.is_empty() && batches.len() + known.padded_bytes() > max_bytes {
                break;
            }
            batches.extend_from_slice(bytes);
            next_offset = known.next_offset();
        }
        Ok(Seen { log_start, high_watermark, leader_epoch, batches, next_offset })
    }
}
