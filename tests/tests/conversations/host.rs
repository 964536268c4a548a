//! A server of the tests: a thread per connection, and who waits for the connections to end.
//!
//! **Invariant:** whatever happens to the talk, the threads end with it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::watch;

/// Serves what connects to `listener`, numbered from 1, while `talk` lasts. `talk` can see how many are open.
pub(crate) fn host<T>(
    listener: &TcpListener,
    serve: impl Fn(usize, TcpStream) + Sync,
    talk: impl FnOnce(watch::Receiver<usize>) -> T,
) -> T {
    let (open, seen) = watch::channel(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (open, over, serve) = (&open, &over, &serve);
        let _end = End { over, at: listener.local_addr().expect("it listens") };
        scope.spawn(move || {
            for connection in 1.. {
                let (stream, _) = listener.accept().expect("somebody connects");
                if over.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_nodelay(true).expect("a socket");
                open.send_modify(|open| *open += 1);
                scope.spawn(move || {
                    serve(connection, stream);
                    open.send_modify(|open| *open -= 1);
                });
            }
        });
        talk(seen)
    })
}

/// Ends the thread that accepts, also when the talk panics.
struct End<'a> {
    over: &'a AtomicBool,
    at: SocketAddr,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.at));
    }
}
