//! The state machine that joins partitions, sessions and storage. No socket, no system call, no clock.
#![forbid(unsafe_code)]
