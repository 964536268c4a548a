//! `corelog` as an operator meets it: processes that are killed, stopped and started again, on real files.

mod broker;
mod control;
mod damage;
mod failing_disk;
mod flights;
mod full_disk;
mod kept;
mod kill_alter;
mod kill_topics;
mod ledger;
mod many;
mod memory;
#[path = "../../../net/testing/tests/over_tcp/peer.rs"]
#[expect(dead_code, reason = "shared with tests that use all of it")]
mod peer;
mod positions;
mod random;
mod relay;
mod retention;
mod rounds;
mod serve;
mod shards;
mod skip;
mod small_disk;
mod start;
mod stopping;
mod story;
mod verify;
