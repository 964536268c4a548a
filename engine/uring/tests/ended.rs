//! What is left of a host that has ended. Alone in its process, whose open files are counted.

use std::time::Duration;

use corelog_uring::host::{Host, HostConfig};
use corelog_uring::{Ring, RingConfig};

const SMALL: RingConfig =
    RingConfig { operations: 8, sockets: 2, files: 2, regions: 1, register_buffers: false };
const HOSTS: usize = 8;

/// An executor of glommio 0.9 leaves an eventfd of its own behind, whatever runs on it.
#[test]
fn a_host_that_ends_closes_what_it_listened_to() {
    // The first one opens what a process keeps.
    run(true);
    let bare = files_left_by(false);
    assert_eq!(files_left_by(true), bare, "listening leaves no file behind");
}

/// By how many files the process has more open after some hosts.
fn files_left_by(listens: bool) -> usize {
    let before = open_files();
    for _ in 0..HOSTS {
        run(listens);
    }
    open_files() - before
}

fn run(listens: bool) {
    let ended = Host::run(&HostConfig::default(), |host| async move {
        let ring = Ring::new(&SMALL).expect("io_uring");
        if listens {
            host.listen(ring.waker().signal()).expect("listening");
        }
        host.park(Some(Duration::from_millis(1))).await;
    });
    assert_eq!(ended, Ok(()));
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}
