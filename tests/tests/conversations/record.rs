//! Recording: today's client and today's broker talk through the proxy.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use corelog_testing::{Broker, Builder};
use tokio::time::timeout;

use crate::conversation::{Conversation, Entry};
use crate::kept::{builder, data, unpack};
use crate::proxy::listen_in;
use crate::script::{Chapter, hold};

/// The store that conversations are held over.
const STORE: &str = "store-2";
/// How long a conversation may take before it is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Has the whole script acted over a fresh copy of the store, below `directory`.
pub(crate) fn record(directory: &Path) -> Conversation {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = listener.local_addr().expect("it listens");
    let mut broker = broker(STORE, endpoint, directory);
    let chapters = Chapter::ALL.to_vec();
    let entries = listen_in(&listener, broker.address(), |open, tape| {
        let tell = |what| tape.put(Entry::Told(what));
        run(async {
            timeout(PATIENCE, hold(endpoint, &chapters, open, &tell)).await.expect("it comes to its end")
        });
    });
    broker.stop().expect("it ends well");
    Conversation { release: release(), store: STORE.to_owned(), endpoint, chapters, entries }
}

/// A broker over a fresh copy of a kept store in `directory`. Its metadata name `endpoint`.
pub(crate) fn broker(store: &str, endpoint: SocketAddr, directory: &Path) -> Broker {
    let copy = directory.join(store);
    unpack(&data(store), &copy);
    let settings = ["server.shards=1".to_owned(), format!("server.advertise={endpoint}")];
    settings.into_iter().fold(builder(&copy), Builder::set).start().expect("it starts")
}

/// Writes a conversation that is missing.
pub(crate) fn keep(conversation: &Conversation, to: &Path) {
    let text = conversation.text();
    assert_eq!(Conversation::parse(&text), *conversation, "what is kept can be read");
    fs::write(to, text).expect("written");
}

/// On one thread: what the client does then depends on nothing but what it is told.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// Version, and the last commit that changed client or broker, for whoever reads the file.
fn release() -> String {
    let code = ["log", "-1", "--format=%h", "--", "../engine/*.rs", "../net/*.rs"];
    let output = Command::new("git").args(code).output();
    let commit = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    format!("{} at commit {}", env!("CARGO_PKG_VERSION"), commit.trim())
}
