//! The ring against the real kernel: loopback sockets and files on the disk the crate is built on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use corelog_model::{Block, BlockId, Slice};

use super::*;
use crate::arena::{Arena, CHUNK_ALIGN, Chunk};
use crate::file::{self, Access};
use crate::socket::{self, SocketOptions};
use crate::test_directory;

const SMALL: RingConfig =
    RingConfig { operations: 16, sockets: 4, files: 4, regions: 4, register_buffers: true };

fn key(slot: u32) -> Key {
    Key::new(1, 7, slot)
}

/// Waits for the completion of every operation in flight, in the order of their slots.
fn finish(ring: &mut Ring) -> Vec<Completion> {
    let mut out = Vec::new();
    while ring.in_flight() > 0 {
        ring.wait(1, Some(Duration::from_secs(10))).expect("the ring works");
        assert!(ring.completions(&mut out) > 0, "nothing completed within 10 s");
    }
    out.sort_by_key(|completion| completion.key.slot());
    out
}

fn finish_one(ring: &mut Ring) -> Completion {
    let mut all = finish(ring);
    assert_eq!(all.len(), 1);
    all.pop().expect("one")
}

/// A ring with a region of two blocks of 1 MiB.
fn with_region(config: &RingConfig) -> (Ring, Vec<Block>) {
    let mut ring = Ring::new(config).expect("io_uring");
    let (region, blocks) = Arena::new().carve(Chunk::map(CHUNK_ALIGN).expect("memory"), 1 << 20);
    ring.register_region(&region);
    (ring, blocks)
}

/// A connection accepted by the ring, and its other end.
fn connected(ring: &mut Ring) -> (SocketId, TcpStream) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (listener, address) = socket::listen(any, &SocketOptions::default()).expect("a port");
    let listener = ring.register_listener(listener).expect("room");
    ring.push(Submission::Accept { key: key(0), listener }, &[]);
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    let accepted = finish_one(ring).accepted.expect("a connection");
    assert_eq!(accepted.peer, stream.local_addr().ok(), "the accept says who connected");
    ring.release_listener(listener).expect("released");
    (accepted.socket, stream)
}

#[test]
fn a_head_and_slices_arrive_in_order_and_what_is_received_comes_back_in_its_block() {
    let (mut ring, mut blocks) = with_region(&SMALL);
    let (socket, mut stream) = connected(&mut ring);
    blocks[0].bytes_mut()[..8].copy_from_slice(b"one two ");
    blocks[1].bytes_mut()[100..105].copy_from_slice(b"three");
    let slices = [
        Slice { block: BlockId(9), offset: 0, length: 1 },
        Slice { block: BlockId(0), offset: 0, length: 8 },
        Slice { block: BlockId(1), offset: 100, length: 5 },
    ];
    let mut head = Block::heap(BlockId(77), 4096);
    head.bytes_mut()[16..21].copy_from_slice(b"zero ");
    let send = Submission::Send {
        key: key(0),
        socket,
        head: Some(head),
        head_offset: 16,
        head_length: 5,
        slices: 1..3,
    };
    ring.push(send, &slices);
    let sent = finish_one(&mut ring);
    assert_eq!(sent.result, Ok(18));
    assert_eq!(sent.block.expect("the head comes back").id(), BlockId(77));
    let mut text = [0; 18];
    stream.read_exact(&mut text).expect("all of it");
    assert_eq!(&text, b"zero one two three");

    stream.write_all(b"back").expect("sent");
    let block = Block::heap(BlockId(78), 4096);
    ring.push(Submission::Recv { key: key(1), socket, block, offset: 10, length: 100 }, &[]);
    let received = finish_one(&mut ring);
    assert_eq!(received.result, Ok(4));
    assert_eq!(&received.block.expect("the block comes back").bytes()[10..14], b"back");
}

#[test]
fn a_send_longer_than_the_socket_buffers_completes_whole() {
    let (mut ring, blocks) = with_region(&SMALL);
    let (socket, mut stream) = connected(&mut ring);
    let whole = Slice { block: blocks[0].id(), offset: 0, length: 1 << 20 };
    // 64 MiB: more than the loopback's buffers ever take at once.
    let slices = vec![whole; 64];
    let send =
        Submission::Send { key: key(0), socket, head: None, head_offset: 0, head_length: 0, slices: 0..64 };
    ring.push(send, &slices);
    let reader = std::thread::spawn(move || {
        let mut left = 64_usize << 20;
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            left -= stream.read(&mut buffer).expect("bytes");
        }
    });
    assert_eq!(finish_one(&mut ring).result, Ok(64 << 20));
    reader.join().expect("all bytes arrived");
}

#[test]
fn after_a_shutdown_the_receive_ends_and_the_place_is_used_again() {
    let (mut ring, _blocks) = with_region(&SMALL);
    let (socket, mut stream) = connected(&mut ring);
    let block = Block::heap(BlockId(1), 4096);
    ring.push(Submission::Recv { key: key(0), socket, block, offset: 0, length: 4096 }, &[]);
    ring.push(Submission::Shutdown { key: key(1), socket }, &[]);
    let ended = finish(&mut ring);
    assert_eq!(ended[0].result, Ok(0), "no more bytes");
    assert!(ended[0].block.is_some());
    assert_eq!(ended[1].result, Ok(0));
    ring.push(Submission::Close { key: key(0), socket }, &[]);
    assert_eq!(finish_one(&mut ring).result, Ok(0));
    assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0);
    ring.push(Submission::Close { key: key(0), socket }, &[]);
    assert_eq!(finish_one(&mut ring).result, Err(Errno(libc::EBADF)), "closed once");
    let (again, _stream) = connected(&mut ring);
    assert_eq!(again, socket);
}

#[test]
fn an_accept_without_a_place_for_the_connection_is_refused() {
    let mut ring = Ring::new(&RingConfig { sockets: 0, ..SMALL }).expect("io_uring");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listener = ring.register_listener(listener.into()).expect("room");
    ring.push(Submission::Accept { key: key(3), listener }, &[]);
    assert!(!ring.arm().expect("armed"), "a refusal waits to be collected: no parking");
    ring.disarm();
    assert_eq!(finish_one(&mut ring).result, Err(Errno::TABLE_FULL));
}

#[test]
fn a_durable_write_is_read_back() {
    for register_buffers in [true, false] {
        let (mut ring, mut blocks) = with_region(&RingConfig { register_buffers, ..SMALL });
        let expected = if register_buffers { Registration::Fixed } else { Registration::Off };
        assert_eq!(ring.registration(), expected);
        let directory = test_directory();
        let path = directory.path().join("extent");
        let file = file::open(&path, Access::DirectCreate).expect("created");
        let file = ring.register_file(file).expect("room");

        blocks[0].bytes_mut()[4096..12288].fill(0x5a);
        let source = Slice { block: BlockId(0), offset: 4096, length: 8192 };
        ring.push(Submission::Write { key: key(0), file, position: 4096, source, flush: true }, &[]);
        assert_eq!(finish_one(&mut ring).result, Ok(8192));
        ring.push(Submission::Sync { key: key(1), file }, &[]);
        assert_eq!(finish_one(&mut ring).result, Ok(0));

        let into = blocks.pop().expect("the second block");
        ring.push(Submission::Read { key: key(2), file, position: 0, into, length: 16384 }, &[]);
        let read = finish_one(&mut ring);
        assert_eq!(read.result, Ok(12288), "short at the end of the file");
        let block = read.block.expect("the block comes back");
        assert!(block.bytes()[..4096].iter().all(|&byte| byte == 0), "a hole reads as zeros");
        assert!(block.bytes()[4096..12288].iter().all(|&byte| byte == 0x5a));
        ring.release_file(file).expect("closed");
    }
}

#[test]
fn more_regions_than_places_are_used_as_plain_memory() {
    let mut ring = Ring::new(&RingConfig { regions: 0, ..SMALL }).expect("io_uring");
    let (region, mut blocks) = Arena::new().carve(Chunk::map(CHUNK_ALIGN).expect("memory"), 1 << 20);
    ring.register_region(&region);
    assert!(ring.registration() != Registration::Off);
    let directory = test_directory();
    let file = file::open(&directory.path().join("plain"), Access::DirectCreate).expect("created");
    let file = ring.register_file(file).expect("room");
    blocks[1].bytes_mut()[..4096].fill(1);
    let source = Slice { block: BlockId(1), offset: 0, length: 4096 };
    ring.push(Submission::Write { key: key(0), file, position: 0, source, flush: false }, &[]);
    assert_eq!(finish_one(&mut ring).result, Ok(4096));
}

#[test]
fn a_cancelled_receive_gives_its_block_back() {
    let (mut ring, _blocks) = with_region(&SMALL);
    let (socket, _stream) = connected(&mut ring);
    let block = Block::heap(BlockId(5), 4096);
    ring.push(Submission::Recv { key: key(0), socket, block, offset: 0, length: 4096 }, &[]);
    ring.submit().expect("submitted");
    ring.push(Submission::Cancel { key: key(1), target: key(0) }, &[]);
    ring.push(Submission::Cancel { key: key(2), target: key(9) }, &[]);
    let ended = finish(&mut ring);
    assert_eq!(ended[0].result, Err(Errno::CANCELED));
    assert_eq!(ended[0].block.as_ref().map(Block::id), Some(BlockId(5)));
    assert_eq!(ended[1].result, Ok(0));
    assert_eq!(ended[2].result, Err(Errno(libc::ENOENT)), "nothing of that name in flight");
}

#[test]
fn a_dropped_ring_takes_back_what_is_in_flight_and_frees_the_port() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut ring, _blocks) = with_region(&SMALL);
    let (listener, address) = socket::listen(any, &SocketOptions::default()).expect("a port");
    let listener = ring.register_listener(listener).expect("room");
    let (socket, mut stream) = connected(&mut ring);
    let block = Block::heap(BlockId(5), 4096);
    ring.push(Submission::Accept { key: key(0), listener }, &[]);
    ring.push(Submission::Recv { key: key(1), socket, block, offset: 0, length: 4096 }, &[]);
    ring.submit().expect("submitted");
    let queued_only =
        ring.adopt_socket(TcpStream::connect(address).expect("connected").into()).expect("room");
    let block = Block::heap(BlockId(6), 4096);
    ring.push(Submission::Recv { key: key(2), socket: queued_only, block, offset: 0, length: 4096 }, &[]);
    assert_eq!(ring.in_flight(), 3);
    drop(ring);
    assert_eq!(stream.read(&mut [0; 1]).expect("closed, not timed out"), 0);
    drop(socket::listen(address, &SocketOptions::default()).expect("the port is free at once"));
}

#[test]
fn a_thread_may_have_any_number_of_rings_one_after_the_other() {
    // The kernel registers 16 a thread.
    for number in 0..40 {
        Ring::new(&SMALL).unwrap_or_else(|error| panic!("ring {number}: {error}"));
    }
}

#[test]
fn an_idle_turn_makes_no_system_call_and_a_busy_one_makes_one() {
    let (mut ring, _blocks) = with_region(&SMALL);
    let (socket, mut stream) = connected(&mut ring);
    let block = Block::heap(BlockId(5), 4096);
    ring.push(Submission::Recv { key: key(0), socket, block, offset: 0, length: 4096 }, &[]);
    ring.submit().expect("submitted");
    let before = ring.counters();
    let mut out = Vec::new();
    for _ in 0..1000 {
        ring.submit().expect("nothing to do");
        assert_eq!(ring.completions(&mut out), 0);
    }
    assert_eq!(ring.counters().enters, before.enters, "1000 idle turns");
    stream.write_all(b"x").expect("sent");
    while ring.completions(&mut out) == 0 {
        ring.submit().expect("collects");
        std::hint::spin_loop();
    }
    assert_eq!(ring.counters().enters, before.enters + 1, "one enter collected it");
    assert_eq!(out[0].result, Ok(1));
}

#[test]
fn an_armed_ring_gives_a_signal_and_a_disarmed_one_does_not() {
    let (mut ring, _blocks) = with_region(&SMALL);
    let (socket, mut stream) = connected(&mut ring);
    let waker = ring.waker();
    let signal = waker.signal();
    let pending = |timeout| {
        let mut fds = [rustix::event::PollFd::new(signal, rustix::event::PollFlags::IN)];
        let time = rustix::time::Timespec { tv_sec: timeout, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&time)).expect("polled") == 1
    };
    let receive = |ring: &mut Ring| {
        let block = Block::heap(BlockId(5), 4096);
        ring.push(Submission::Recv { key: key(0), socket, block, offset: 0, length: 4096 }, &[]);
    };
    receive(&mut ring);
    assert!(ring.arm().expect("armed"), "nothing there: may park");
    assert!(!pending(0));
    stream.write_all(b"x").expect("sent");
    assert!(pending(10), "the kernel signals what arrives while armed");
    ring.disarm();
    assert_eq!(finish_one(&mut ring).result, Ok(1));

    signal.clear();
    receive(&mut ring);
    ring.submit().expect("submitted");
    stream.write_all(b"y").expect("sent");
    assert_eq!(finish_one(&mut ring).result, Ok(1));
    assert!(!pending(0), "a busy reactor pays no signal");
}

/// However often, and whether it sleeps in the ring or where the signal is read.
#[test]
fn a_wake_ends_every_sleep_and_is_nobodys_completion() {
    const LONG: Duration = Duration::from_secs(60);
    let mut ring = Ring::new(&SMALL).expect("io_uring");
    let (mut out, start) = (Vec::new(), Instant::now());
    for _ in 0..5 {
        ring.waker().wake();
        ring.park(LONG).expect("woken before");
        assert_eq!(ring.completions(&mut out), 0);
        let waker = ring.waker();
        let other = std::thread::spawn(move || waker.wake());
        ring.park(LONG).expect("woken");
        assert_eq!(ring.completions(&mut out), 0);
        other.join().expect("it ends");
        ring.waker().signal().clear();

        assert!(ring.arm().expect("armed"), "nothing there");
        let waker = ring.waker();
        let other = std::thread::spawn(move || waker.wake());
        ring.waker().signal().clear();
        ring.disarm();
        other.join().expect("it ends");
    }
    assert!(start.elapsed() < LONG, "no sleep took its time");
    ring.park(LONG).expect("woken while armed");
    assert_eq!(ring.completions(&mut out), 0);
    let start = Instant::now();
    ring.park(Duration::from_millis(2)).expect("nobody wakes it");
    assert!(start.elapsed() >= Duration::from_millis(2));
}

/// It ends the sleep of the other ring; of one that cannot arrive the ring it was sent from hears, and of no other.
#[test]
fn a_knock_ends_anothers_sleep_or_is_unheard() {
    const LONG: Duration = Duration::from_secs(60);
    let (mut here, mut there) = (Ring::new(&SMALL).expect("io_uring"), Ring::new(&SMALL).expect("io_uring"));
    let door = there.fd().expect("a descriptor");
    let (mut out, start) = (Vec::new(), Instant::now());
    here.knock(&door, 3);
    here.submit().expect("submitted");
    there.park(LONG).expect("knocked at");
    assert!(start.elapsed() < LONG, "the sleep did not take its time");
    assert_eq!((there.completions(&mut out), here.completions(&mut out)), (0, 0), "nobody's completions");
    assert_eq!(here.unheard(), None);

    let no_ring = OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there"));
    here.knock(&no_ring, 0);
    here.knock(&door, 4);
    here.knock(&no_ring, MAX_KNOCKS - 1);
    here.submit().expect("submitted");
    assert_eq!(here.completions(&mut out), 0);
    let mut unheard: Vec<u32> = std::iter::from_fn(|| here.unheard()).collect();
    unheard.sort_unstable();
    assert_eq!(unheard, [0, MAX_KNOCKS - 1]);
    there.park(LONG).expect("knocked at");
    assert_eq!((there.completions(&mut out), there.unheard()), (0, None));
    assert!(start.elapsed() < LONG);
}

#[test]
#[should_panic(expected = "one operation in flight")]
fn a_slot_used_twice_is_our_own_mistake() {
    let mut ring = Ring::new(&SMALL).expect("io_uring");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listener = ring.register_listener(listener.into()).expect("room");
    ring.push(Submission::Accept { key: Key::new(1, 1, 3), listener }, &[]);
    ring.push(Submission::Accept { key: Key::new(1, 2, 3), listener }, &[]);
}
