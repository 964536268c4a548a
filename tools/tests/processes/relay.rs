//! Stands between a producer and the ports of a broker and can hold back the broker's answers. It knows how many bytes of
//! records the broker was sent whose acknowledgement the producer has not seen: what a kill at this moment leaves open.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use corelog_wire::{Api, FrameHeader};

const HEADER_BYTES: usize = 32;
const FRAME_LIMIT: usize = 64 << 20;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Relay {
    /// Of each port of the broker.
    pub(crate) addresses: Vec<String>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the broker's ports are; none without a broker.
    broker: Vec<String>,
    /// Counts the brokers there were: threads of an earlier one end.
    life: u64,
    /// Answers to Produce that may still pass; the others wait for the end of their broker.
    may_pass: u64,
    /// Bytes of batches sent to the broker of this life, by connection and correlation.
    unacknowledged: HashMap<(u64, u64), u64>,
    connections: u64,
}

impl Relay {
    pub(crate) fn start(ports: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let listen = |port| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("an address").to_string();
            let of_thread = shared.clone();
            // Ends with the test's process: it holds nothing that outlives that.
            thread::spawn(move || {
                for client in listener.incoming().map_while(Result::ok) {
                    // Without a broker the connection is closed, as a dead broker's would be.
                    of_thread.connect(client, port);
                }
            });
            address
        };
        Self { addresses: (0..ports).map(listen).collect(), shared }
    }

    /// A new broker; so many of its answers to Produce pass.
    pub(crate) fn serve(&self, broker: &[String], may_pass: u64) {
        assert_eq!(broker.len(), self.addresses.len());
        let mut state = self.shared.lock();
        state.broker = broker.to_vec();
        state.life += 1;
        state.may_pass = may_pass;
        state.unacknowledged.clear();
    }

    /// Waits until so many bytes are unacknowledged with no answer allowed to pass any more. They stay so until
    /// [`Relay::over`]. Answers the bytes.
    pub(crate) fn unacknowledged(&self, bytes: u64) -> u64 {
        let state = self.shared.lock();
        let not_yet = |state: &mut State| state.may_pass > 0 || state.open_bytes() < bytes;
        let (state, waited) =
            self.shared.changed.wait_timeout_while(state, PATIENCE, not_yet).expect("no panic");
        let open = state.open_bytes();
        assert!(!waited.timed_out(), "{} answers may still pass, {open} bytes are open", state.may_pass);
        open
    }

    /// The broker is gone: what it answered and was held back is never seen.
    pub(crate) fn over(&self) {
        let mut state = self.shared.lock();
        state.broker.clear();
        state.life += 1;
        state.unacknowledged.clear();
        self.shared.changed.notify_all();
    }
}

impl State {
    fn open_bytes(&self) -> u64 {
        self.unacknowledged.values().sum()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn connect(self: &Arc<Self>, client: TcpStream, port: usize) {
        let mut state = self.lock();
        let broker = state.broker.get(port);
        let Some(server) = broker.and_then(|address| TcpStream::connect(address).ok()) else {
            return;
        };
        state.connections += 1;
        let (connection, life) = (state.connections, state.life);
        drop(state);
        let (from, to) = (client.try_clone().expect("open"), server.try_clone().expect("open"));
        let shared = self.clone();
        thread::spawn(move || shared.requests(from, to, (life, connection)));
        let shared = self.clone();
        thread::spawn(move || shared.answers(server, client, (life, connection)));
    }

    fn requests(&self, mut from: TcpStream, mut to: TcpStream, (life, connection): (u64, u64)) {
        while let Some((header, frame)) = read_frame(&mut from) {
            // Before it is sent: its answer may come at once.
            if is_produce(&header) {
                let mut state = self.lock();
                if state.life == life {
                    let request = (connection, header.correlation);
                    state.unacknowledged.insert(request, u64::from(header.payload_bytes));
                    self.changed.notify_all();
                }
            }
            if to.write_all(&frame).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
    }

    fn answers(&self, mut from: TcpStream, mut to: TcpStream, (life, connection): (u64, u64)) {
        while let Some((header, frame)) = read_frame(&mut from) {
            if is_produce(&header) && !self.may_pass(life, (connection, header.correlation)) {
                break;
            }
            if to.write_all(&frame).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
    }

    /// Waits until this answer may pass, or its broker is gone.
    fn may_pass(&self, life: u64, request: (u64, u64)) -> bool {
        let held = |state: &mut State| state.life == life && state.may_pass == 0;
        let mut state = self.changed.wait_while(self.lock(), held).expect("no panic");
        if state.life != life {
            return false;
        }
        state.may_pass -= 1;
        state.unacknowledged.remove(&request);
        self.changed.notify_all();
        true
    }
}

fn is_produce(header: &FrameHeader) -> bool {
    header.api == Api::Produce as u16
}

/// One frame; `None` at the end of the connection, which may be in the middle of a frame.
fn read_frame(from: &mut TcpStream) -> Option<(FrameHeader, Vec<u8>)> {
    let mut head = [0; HEADER_BYTES];
    from.read_exact(&mut head).ok()?;
    let header = FrameHeader::parse(&head, FRAME_LIMIT).expect("both speak the protocol");
    let mut frame = head.to_vec();
    frame.resize(header.length as usize, 0);
    from.read_exact(&mut frame[HEADER_BYTES..]).ok()?;
    Some((header, frame))
}
