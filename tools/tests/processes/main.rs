//! `corelog` as an operator meets it: processes that are killed, stopped and started again, on real files.

mod broker;
mod damage;
mod flights;
mod full_disk;
mod kill_topics;
mod random;
mod relay;
mod serve;
mod story;
