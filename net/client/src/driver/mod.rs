//! The tokio driver: sockets, clock and tasks around the core. **Must not** decide anything the core could.

pub(crate) mod clock;
pub(crate) mod consume;
pub(crate) mod control;
pub(crate) mod dial;
pub(crate) mod link;
pub(crate) mod produce;
