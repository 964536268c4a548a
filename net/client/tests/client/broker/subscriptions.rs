//! The subscriptions of one connection, and how much may be pushed to each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// What the client said of a subscription.
pub(super) struct Subscription {
    pub(super) credit: i64,
    pub(super) ended: bool,
}

/// The subscriptions of a connection, by handle.
#[derive(Default)]
pub(super) struct Subscriptions(HashMap<u32, Arc<Mutex<Subscription>>>);

impl Subscriptions {
    pub(super) fn begin(&mut self, handle: u32, credit: u32) -> Arc<Mutex<Subscription>> {
        self.give(handle, 0, true);
        let begun = Arc::new(Mutex::new(Subscription { credit: credit.into(), ended: false }));
        self.0.insert(handle, Arc::clone(&begun));
        begun
    }

    pub(super) fn give(&mut self, handle: u32, bytes: u32, ends: bool) {
        if let Some(subscription) = self.0.get(&handle) {
            let mut subscription = subscription.lock().unwrap();
            subscription.credit += i64::from(bytes);
            subscription.ended |= ends;
        }
    }
}
