//! What the checks of a running broker share: the load they make, where the shard's thread is, and their turns.

pub(crate) mod load;
pub(crate) mod task;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One broker is measured at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
