//! Conversations of released clients with released brokers, kept as text: what was understood once is understood for ever.
//!
//! Each was held over a kept store by the client and the broker of one release, with a proxy between them that wrote down
//! every frame ([`record`]). Two tests play every one that is there: the recorded client against a broker of today
//! ([`player`], which says in [`compare`] what may differ), and a client of today against the recorded broker
//! ([`answerer`]). Pushes are not compared frame by frame: a broker may cut what it pushes as it likes, so the batches of a
//! subscription are compared as one sequence.
//!
//! `CORELOG_GOLDEN=write cargo test -p corelog-tests --test conversations` records what is missing up to [`NEWEST`], with
//! the code as it is. A release that says something new, or says it in another way, adds a chapter to [`script`] and
//! raises that number. What is kept is never changed.

mod answerer;
mod compare;
mod conversation;
mod host;
#[path = "../kept/mod.rs"]
mod kept;
mod noticed;
mod player;
mod proxy;
mod record;
mod script;

use std::fs;
use std::sync::OnceLock;

use conversation::Conversation;
use kept::{data, directory, writes};
use record::{broker, keep, record};

/// The last conversation; all before it are there too. 1: the first release. 2: consumers subscribe,
/// topics are altered, positions are kept.
const NEWEST: u32 = 2;

/// All that are kept, with their names.
fn kept() -> &'static [(String, Conversation)] {
    static KEPT: OnceLock<Vec<(String, Conversation)>> = OnceLock::new();
    KEPT.get_or_init(|| {
        let newest = data(&format!("conversation-{NEWEST}"));
        if writes() && !newest.exists() {
            keep(&record(directory().path()), &newest);
        }
        let entries = fs::read_dir(data("")).expect("the data of the tests");
        let names = entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("conversation-")).collect();
        names.sort();
        let numbered: Vec<String> = (1..=NEWEST).map(|number| format!("conversation-{number}")).collect();
        assert!(numbered.iter().all(|name| names.contains(name)), "{names:?}: none is ever removed");
        let read = |name: String| {
            let text = fs::read_to_string(data(&name)).expect("it was listed");
            (name, Conversation::parse(&text))
        };
        names.into_iter().map(read).collect()
    })
}

/// The recorded client, and a broker of today.
fn play(conversation: &Conversation) -> Result<(), String> {
    let directory = directory();
    let mut broker = broker(&conversation.store, conversation.endpoint, directory.path());
    let played = player::play(conversation, broker.address());
    broker.stop().expect("it ends well");
    played
}

/// A client of today, and the recorded broker.
fn answer(conversation: &Conversation) -> Result<(), String> {
    let told = answerer::answer(conversation)?;
    let recorded = conversation.told();
    let differs = recorded.iter().zip(&told).find(|(recorded, told)| *recorded != told);
    match differs {
        Some((recorded, told)) => Err(format!("recorded: {recorded}\ntold: {told}")),
        None if recorded.len() != told.len() => {
            Err(format!("{} things told, not {}", told.len(), recorded.len()))
        }
        None => Ok(()),
    }
}

#[test]
fn an_older_client_is_understood() {
    for (name, conversation) in kept() {
        play(conversation)
            .unwrap_or_else(|difference| panic!("{name}, {}: {difference}", conversation.release));
    }
}

#[test]
fn an_older_broker_is_understood() {
    for (name, conversation) in kept() {
        answer(conversation)
            .unwrap_or_else(|difference| panic!("{name}, {}: {difference}", conversation.release));
    }
}

/// The checks ask for nothing that only the kept conversations have.
#[test]
fn a_conversation_of_today_passes_the_same_checks() {
    let today = record(directory().path());
    assert_eq!(Conversation::parse(&today.text()), today);
    assert_eq!(play(&today), Ok(()));
    assert_eq!(answer(&today), Ok(()));
}
