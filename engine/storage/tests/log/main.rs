//! The log from outside: crashes, failures, and the bytes it writes.
mod crash;
mod disk;
mod failures;
mod format;
mod index;
mod lost;
mod under_way;
