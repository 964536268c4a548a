//! The shard's thread, as the kernel knows it.

use std::fs;

/// What a broker calls the thread of its first shard.
const SHARD: &str = "corelog-shard-0";

/// The thread id of the one broker that runs in this process: the first of its name, for the threads that its
/// executor starts inherit it.
///
/// # Panics
/// When there is none.
pub(crate) fn shard() -> i32 {
    let tasks = fs::read_dir("/proc/self/task").expect("a process has tasks");
    let ids = tasks.map(|task| task.expect("a task").file_name());
    let shards = ids.filter_map(|id| id.to_str()?.parse().ok()).filter(|id| {
        fs::read_to_string(format!("/proc/self/task/{id}/comm")).is_ok_and(|name| name.trim_end() == SHARD)
    });
    shards.min().expect("a broker runs")
}
