//! What the checks of a running broker share: the load they make, and where the shard's thread is.

pub(crate) mod load;
pub(crate) mod task;
