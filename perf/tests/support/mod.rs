//! What the checks of a running broker share: peers that speak the protocol with nothing but the codec, and the
//! load they make.

pub(crate) mod load;
pub(crate) mod peer;
pub(crate) mod task;
