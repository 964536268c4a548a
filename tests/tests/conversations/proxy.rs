//! The recorder: stands between a client and a broker and writes down what both say.
//!
//! **Invariant:** a frame is written down before it is passed on. So whatever made somebody say something stands above
//! it, over all connections.

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::sync::watch;

use crate::conversation::{Entry, Frame, Side};
use crate::host::host;

/// What was written down so far.
#[derive(Default)]
pub(crate) struct Tape(Mutex<Vec<Entry>>);

impl Tape {
    /// Writes something down.
    pub(crate) fn put(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
}

/// All that goes between `broker` and those who connect to `listener` during `talk`, and what that adds.
pub(crate) fn listen_in(
    listener: &TcpListener,
    broker: SocketAddr,
    talk: impl FnOnce(watch::Receiver<usize>, &Tape),
) -> Vec<Entry> {
    let tape = Tape::default();
    host(
        listener,
        |connection, client| between(connection, &client, broker, &tape),
        |open| talk(open, &tape),
    );
    tape.0.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn between(connection: usize, client: &TcpStream, broker: SocketAddr, tape: &Tape) {
    let broker = TcpStream::connect(broker).expect("the broker listens");
    broker.set_nodelay(true).expect("a socket");
    thread::scope(|scope| {
        scope.spawn(|| pass_on(connection, Side::Broker, &broker, client, tape));
        pass_on(connection, Side::Client, client, &broker, tape);
    });
}

fn pass_on(connection: usize, by: Side, mut from: &TcpStream, mut to: &TcpStream, tape: &Tape) {
    loop {
        match Frame::read(&mut from) {
            Ok(Some(frame)) => {
                let bytes = frame.bytes();
                tape.put(Entry::Said { connection, by, frame });
                // A client that has gone is still answered, and the answer belongs to the conversation.
                let _ = to.write_all(&bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                panic!("{by:?}: not a frame as it should be")
            }
            Ok(None) | Err(_) => break,
        }
    }
    tape.put(Entry::Ended { connection, by });
    // The other side may have gone too.
    let _ = to.shutdown(Shutdown::Write);
}
