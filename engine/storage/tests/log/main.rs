//! The log from outside: crashes, failures, and the bytes it writes.
mod accept;
mod ahead;
mod crash;
mod disk;
mod failures;
mod features;
mod format;
mod full_disk;
mod index;
mod latent;
mod lost;
mod many;
mod medium;
mod scrub;
mod settle;
mod trim;
mod under_way;
