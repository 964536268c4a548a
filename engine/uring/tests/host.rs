//! The host against the real kernel: parks that end for the right reason, and background work on real files.

#[path = "../../../tools/tests/processes/skip.rs"]
mod skip;

use std::cell::Cell;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corelog_model::{Block, BlockId};
use corelog_uring::file::Access;
use corelog_uring::host::{BackgroundDone, BackgroundOp, Host, HostConfig, HostError};
use corelog_uring::{Errno, Key, Ring, RingConfig, Submission, file, socket};

/// Far longer than anything here takes: a park that lasts so long was not ended.
const FOREVER: Duration = Duration::from_secs(30);

const SMALL: RingConfig =
    RingConfig { operations: 8, sockets: 2, files: 2, regions: 1, register_buffers: false };

fn directory() -> tempfile::TempDir {
    let beside = std::env::current_exe().expect("a test binary has a path");
    tempfile::TempDir::with_prefix_in("corelog-host-", beside.parent().expect("a directory"))
        .expect("a directory")
}

/// Runs background operations one after the other and returns their results.
fn in_order(access: Access, ops: Vec<BackgroundOp>) -> Vec<BackgroundDone> {
    let run = |host: Host| async move {
        let mut done = Vec::new();
        for (key, op) in (0_u64..).zip(ops) {
            host.background(key, access, op);
            assert_eq!(host.running(), 1);
            let before = done.len();
            while done.len() == before {
                host.park(Some(FOREVER)).await;
                host.finished(&mut done);
            }
            assert_eq!(host.running(), 0);
        }
        done
    };
    Host::run(&HostConfig::default(), run).expect("a host")
}

fn done(key: u64, bytes: u64) -> BackgroundDone {
    BackgroundDone { key, result: Ok(bytes) }
}

#[test]
fn another_thread_ends_every_park_even_when_the_core_is_fought_for() {
    // Threads that take the core away in the middle of everything.
    let busy = Arc::new(AtomicBool::new(true));
    let hogs: Vec<_> = (0..4)
        .map(|_| {
            let busy = Arc::clone(&busy);
            thread::spawn(move || while busy.load(Ordering::Relaxed) {})
        })
        .collect();
    let rounds = Host::run(&HostConfig::default(), |host| async move {
        let ring = Ring::new(&SMALL).expect("io_uring");
        host.listen(ring.waker().signal()).expect("listening");
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let waker = ring.waker();
        let other = thread::spawn(move || gone.iter().for_each(|()| waker.wake()));
        let mut rounds = 0;
        while rounds < 200 {
            go.send(()).expect("the other thread lives");
            let start = Instant::now();
            host.park(None).await;
            // A park may end early, and then the wake still comes.
            assert!(start.elapsed() < FOREVER);
            rounds += 1;
        }
        drop(go);
        other.join().expect("it ends");
        rounds
    });
    busy.store(false, Ordering::Relaxed);
    hogs.into_iter().for_each(|hog| hog.join().expect("it ends"));
    assert_eq!(rounds, Ok(200));
}

#[test]
fn a_completion_of_an_armed_ring_ends_a_park_without_a_timer() {
    let received = Host::run(&HostConfig::default(), |host| async move {
        let mut ring = Ring::new(&SMALL).expect("io_uring");
        host.listen(ring.waker().signal()).expect("listening");
        let any = "127.0.0.1:0".parse().expect("an address");
        let (listener, address) = socket::listen(any, &socket::SocketOptions::default()).expect("a port");
        let listener = ring.register_listener(listener).expect("room");
        ring.push(Submission::Accept { key: Key::new(0, 0, 0), listener }, &[]);
        let other = thread::spawn(move || {
            let options = socket::SocketOptions::default();
            socket::connect(address, &options).expect("connected")
        });
        let mut out = Vec::new();
        while ring.completions(&mut out) == 0 {
            if ring.arm().expect("armed") {
                host.park(None).await;
            }
            ring.disarm();
            ring.submit().expect("collects");
        }
        drop(other.join().expect("it connected"));
        out[0].result
    });
    assert!(matches!(received, Ok(Ok(_))), "{received:?}");
}

#[test]
fn a_park_ends_at_its_deadline() {
    let slept = Host::run(&HostConfig::default(), |host| async move {
        let start = Instant::now();
        host.park(Some(Duration::from_millis(5))).await;
        start.elapsed()
    });
    let slept = slept.expect("a host");
    assert!(slept >= Duration::from_millis(5) && slept < FOREVER, "{slept:?}");
}

#[test]
fn a_wake_before_the_park_is_not_lost() {
    let ended = Host::run(&HostConfig::default(), |host| async move {
        let ring = Ring::new(&SMALL).expect("io_uring");
        ring.waker().wake();
        host.listen(ring.waker().signal()).expect("listening");
        host.park(None).await;
    });
    assert_eq!(ended, Ok(()));
}

#[test]
fn a_busy_reactor_is_told_to_yield_and_others_then_run() {
    let others = Host::run(&HostConfig::default(), |host| async move {
        let ran = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ran);
        host.spawn(async move { flag.set(true) });
        let start = Instant::now();
        while !ran.get() && start.elapsed() < FOREVER {
            while !host.need_yield() {
                std::hint::spin_loop();
            }
            host.yield_now().await;
        }
        ran.get()
    });
    assert_eq!(others, Ok(true));
}

/// Past the page cache and through it.
const BOTH: [Access; 2] = [Access::Direct, Access::Buffered];

/// A file system in memory that has neither O_DIRECT nor fallocate; unmounted when dropped.
struct Ramfs(tempfile::TempDir);

impl Ramfs {
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().expect("a temporary directory");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "ramfs", "ramfs"]).arg(place.path()).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(place))
    }
}

impl Drop for Ramfs {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

#[test]
fn an_extent_appears_whole_under_its_name_and_goes_again() {
    for access in BOTH {
        let directory = directory();
        extent_comes_and_goes(access, directory.path());
    }
}

#[test]
fn where_nothing_can_be_allocated_an_extent_is_written_whole() {
    let Some(ramfs) = Ramfs::mount() else {
        return skip::skipped("only root mounts a file system without fallocate");
    };
    let refused = file::open(&ramfs.0.path().join("direct"), Access::DirectCreate).expect_err("no O_DIRECT");
    assert!(matches!(refused, file::FileError::DirectRefused { .. }), "{refused:?}");
    std::fs::remove_file(ramfs.0.path().join("direct")).ok();
    extent_comes_and_goes(Access::Buffered, ramfs.0.path());
}

fn extent_comes_and_goes(access: Access, directory: &Path) {
    // No multiple of what is zeroed at a time.
    const BYTES: u64 = (1 << 20) + 4096;
    let path = directory.join("extent");
    let create = BackgroundOp::CreateExtent {
        directory: directory.to_owned(),
        name: "extent".to_owned(),
        bytes: BYTES,
    };
    assert_eq!(in_order(access, vec![create]), [done(0, BYTES)]);
    assert_eq!(file::list(directory), Ok(vec![("extent".to_owned(), BYTES)]), "no temporary name left");
    assert!(std::fs::read(&path).expect("read").iter().all(|&byte| byte == 0));
    let status = std::fs::metadata(&path).expect("it is there");
    assert!(status.blocks() * 512 >= BYTES, "allocated, not a hole: {} blocks", status.blocks());
    let remove = BackgroundOp::Remove { path };
    let results = in_order(access, vec![remove.clone(), remove]);
    assert_eq!(results[0], done(0, 0));
    let error = results[1].result.as_ref().expect_err("it is gone");
    assert_eq!(error.errno(), Errno(libc::ENOENT));
    assert!(error.to_string().contains("extent"), "{error}");
}

#[test]
fn zeroing_touches_its_range_and_nothing_else() {
    for access in BOTH {
        let directory = directory();
        let path = directory.path().join("extent");
        std::fs::write(&path, vec![0xff; 1 << 20]).expect("written");
        let op = BackgroundOp::Zero { path: path.clone(), position: 4096, bytes: (512 << 10) + 4096 };
        assert_eq!(in_order(access, vec![op]), [done(0, (512 << 10) + 4096)]);
        let bytes = std::fs::read(&path).expect("read");
        let end = 4096 + (512 << 10) + 4096;
        assert!(bytes[..4096].iter().all(|&byte| byte == 0xff), "before");
        assert!(bytes[4096..end].iter().all(|&byte| byte == 0), "the range");
        assert!(bytes[end..].iter().all(|&byte| byte == 0xff), "after");
        assert_eq!(bytes.len(), 1 << 20);
    }
}

#[test]
fn a_directory_that_is_not_there_is_named_in_the_error() {
    for access in BOTH {
        let create = BackgroundOp::CreateExtent {
            directory: Path::new("/nonexistent/store").to_owned(),
            name: "extent".to_owned(),
            bytes: 4096,
        };
        let results = in_order(access, vec![create]);
        let error = results[0].result.as_ref().expect_err("no such directory");
        assert!(error.to_string().contains("/nonexistent/store/extent"), "{error}");
    }
}

#[test]
fn a_core_that_does_not_exist_is_refused() {
    let refused = Host::run(&HostConfig { core: Some(100_000) }, |_| async {});
    assert_eq!(refused, Err(HostError::NoSuchCore { core: 100_000 }));
}

#[test]
fn too_little_locked_memory_says_what_to_type() {
    let text = HostError::LockedMemory { bytes: 64 << 10 }.to_string();
    assert!(text.contains("64 KiB") && text.contains("ulimit -l"), "{text}");
}

#[test]
fn a_ring_dropped_inside_its_host_gives_its_operations_back() {
    let ended = Host::run(&HostConfig::default(), |host| async move {
        let mut ring = Ring::new(&SMALL).expect("io_uring");
        host.listen(ring.waker().signal()).expect("listening");
        let any = "127.0.0.1:0".parse().expect("an address");
        let (listener, address) = socket::listen(any, &socket::SocketOptions::default()).expect("a port");
        let listener = ring.register_listener(listener).expect("room");
        let stream = socket::connect(address, &socket::SocketOptions::default()).expect("connected");
        let socket = ring.adopt_socket(stream).expect("room");
        ring.push(Submission::Accept { key: Key::new(0, 0, 0), listener }, &[]);
        let block = Block::heap(BlockId(0), 4096);
        ring.push(Submission::Recv { key: Key::new(0, 0, 1), socket, block, offset: 0, length: 4096 }, &[]);
        ring.submit().expect("submitted");
    });
    assert_eq!(ended, Ok(()));
}
