//! One connection's task: dial, serve, and again. The same loop for all three kinds of connection.
//!
//! A round fills the outbox, writes, reads, and hands out answers, without waiting in between; only when nothing moves
//! does it wait, for the socket, for news from the other side of the core's lock, or for a deadline.

use std::future::pending;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::Backoff;
use crate::core::backoff::pause_us;
use crate::core::connection::{Connection, Reply};
use crate::core::inbox::Inbox;
use crate::core::outbox::Outbox;
use crate::core::rng::Rng;
use crate::driver::clock::Clock;
use crate::driver::dial::{Dialed, Dialer};
use crate::error::LinkError;

/// Requests are made while fewer bytes than this are unsent: enough to keep a socket busy, little enough that batches go
/// on filling while the socket is slow.
pub(crate) const OUTBOX_BYTES: usize = 1 << 20;
/// Pieces per write.
const SLICES: usize = 64;
/// Bytes moved, either way, before other tasks of the runtime get their turn: some 50 us of copying.
const FAIR_BYTES: usize = 256 << 10;
/// A connection that did not last this long counts as a failed attempt.
const SHORT_LIFE: Duration = Duration::from_millis(500);

/// What a connection is for. Each method takes its lock, and performs the effects, itself.
pub(crate) trait Role: Send + 'static {
    /// What to do with an answer.
    type Token: Send + 'static;

    /// Names the Hello request.
    fn greeting(&self) -> Self::Token;
    fn connected(&mut self, now_us: u64);
    fn lost(&mut self, now_us: u64);
    /// Time has passed, or there is news, while there is no connection.
    fn tick(&mut self, now_us: u64);
    /// Puts everything that is to be sent now into the outbox.
    fn fill(&mut self, connection: &mut Connection<Self::Token>, now_us: u64);
    fn answer(&mut self, reply: Reply<'_, Self::Token>, now_us: u64);
    /// Several answers were handed in.
    fn answered(&mut self);
    fn deadline_us(&self, now_us: u64) -> Option<u64>;
    fn news(&self) -> &Notify;
    /// The peer has been silent for too long: try another connection.
    fn stuck(&self) -> bool;
    /// Nobody is interested in this connection any more.
    fn finished(&self) -> bool;
}

/// What a link needs besides its role.
pub(crate) struct Setting {
    pub(crate) dialer: Dialer,
    pub(crate) backoff: Backoff,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
}

/// Serves the role until it is finished; `dialed` is a connection to begin with.
pub(crate) async fn run<R: Role>(mut role: R, mut setting: Setting, mut dialed: Option<Dialed<R::Token>>) {
    let mut failures = 0;
    loop {
        let made = match dialed.take() {
            Some(dialed) => Some(dialed),
            None => redial(&mut role, &mut setting, &mut failures).await,
        };
        let Some(Dialed { stream, mut connection, .. }) = made else { return };
        let since = Instant::now();
        role.connected(setting.clock.now_us());
        let cause = serve(&mut role, &stream, &mut connection, setting.clock).await;
        // What is still in the outbox must be let go of before it is stamped anew.
        drop(connection);
        drop(stream);
        role.lost(setting.clock.now_us());
        if role.finished() {
            return;
        }
        failures = if since.elapsed() < SHORT_LIFE { failures + 1 } else { 0 };
        tracing::warn!(address = setting.dialer.address(failures as usize), %cause, "connection lost");
    }
}

async fn redial<R: Role>(
    role: &mut R,
    setting: &mut Setting,
    failures: &mut u32,
) -> Option<Dialed<R::Token>> {
    loop {
        let attempt = *failures;
        let pause = if attempt == 0 { 0 } else { pause_us(setting.backoff, attempt, &mut setting.rng) };
        let token = role.greeting();
        let dialer = &setting.dialer;
        let mut dialing = pin!(async move {
            if pause > 0 {
                sleep(Duration::from_micros(pause)).await;
            }
            dialer.dial(attempt as usize, token).await
        });
        let result = loop {
            let now_us = setting.clock.now_us();
            role.tick(now_us);
            if role.finished() {
                return None;
            }
            let deadline = role.deadline_us(now_us);
            tokio::select! {
                result = &mut dialing => break result,
                () = role.news().notified() => {}
                () = until(setting.clock, deadline) => {}
            }
        };
        match result {
            Ok(dialed) => return Some(dialed),
            Err(cause) => {
                tracing::debug!(address = dialer.address(attempt as usize), %cause, "cannot connect");
                *failures += 1;
            }
        }
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved {
    /// Written and read.
    bytes: usize,
    /// Another round is due at once.
    again: bool,
}

/// Rounds until the connection fails or the role is finished; why it ended.
async fn serve<R: Role>(
    role: &mut R,
    stream: &TcpStream,
    connection: &mut Connection<R::Token>,
    clock: Clock,
) -> LinkError {
    let mut since_yield = 0;
    loop {
        let moved = match round(role, stream, connection, clock) {
            Ok(moved) => moved,
            Err(cause) => return cause,
        };
        if role.finished() {
            return LinkError::Closed;
        }
        if role.stuck() {
            return LinkError::Timeout;
        }
        since_yield += moved.bytes;
        if moved.again {
            if since_yield >= FAIR_BYTES {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
            continue;
        }
        since_yield = 0;
        let unsent = connection.outbox.bytes() > 0;
        let interest = if unsent { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let deadline = role.deadline_us(clock.now_us());
        tokio::select! {
            ready = stream.ready(interest) => {
                if let Err(error) = ready {
                    return LinkError::Io(error.kind());
                }
            }
            () = role.news().notified() => {}
            () = until(clock, deadline) => {}
        }
    }
}

/// One round.
fn round<R: Role>(
    role: &mut R,
    stream: &TcpStream,
    connection: &mut Connection<R::Token>,
    clock: Clock,
) -> Result<Moved, LinkError> {
    if connection.outbox.bytes() < OUTBOX_BYTES {
        role.fill(connection, clock.now_us());
    }
    let written = write_some(stream, &mut connection.outbox)?;
    let received = read_some(stream, &mut connection.inbox)?;
    if received > 0 {
        let now_us = clock.now_us();
        let answered = hand_out(role, connection, now_us);
        role.answered();
        answered?;
    }
    Ok(Moved { bytes: written + received, again: received > 0 || written >= FAIR_BYTES })
}

fn hand_out<R: Role>(
    role: &mut R,
    connection: &mut Connection<R::Token>,
    now_us: u64,
) -> Result<(), LinkError> {
    while let Some(reply) = connection.next()? {
        role.answer(reply, now_us);
    }
    Ok(())
}

/// Writes until everything is out, the socket takes no more, or it was much; how many bytes.
pub(crate) fn write_some(stream: &TcpStream, outbox: &mut Outbox) -> Result<usize, LinkError> {
    let mut written = 0;
    while outbox.bytes() > 0 && written < FAIR_BYTES {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = outbox.slices(&mut slices, FAIR_BYTES);
        match stream.try_write_vectored(&slices[..count]) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(sent) => {
                outbox.advance(sent);
                written += sent;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(LinkError::Io(error.kind())),
        }
    }
    Ok(written)
}

/// Reads once; how many bytes, 0 when nothing was there.
pub(crate) fn read_some(stream: &TcpStream, inbox: &mut Inbox) -> Result<usize, LinkError> {
    match stream.try_read(inbox.space()) {
        Ok(0) => Err(LinkError::Closed),
        Ok(received) => {
            inbox.filled(received);
            Ok(received)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(LinkError::Io(error.kind())),
    }
}

async fn until(clock: Clock, deadline_us: Option<u64>) {
    match deadline_us {
        Some(us) => sleep_until(Instant::from_std(clock.instant(us))).await,
        None => pending().await,
    }
}
