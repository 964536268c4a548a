//! Conversations of released clients with released brokers, kept as text: what was understood once must be for ever.

mod conversation;
mod host;
#[path = "../kept/mod.rs"]
mod kept;
mod proxy;
mod record;
mod script;

use kept::{data, directory, writes};
use record::{keep, record};

#[test]
fn a_conversation_is_recorded() {
    let directory = directory();
    let conversation = record(directory.path());
    assert!(conversation.told().len() > 100);
    let kept = data("conversation-1");
    if writes() && !kept.exists() {
        keep(&conversation, &kept);
    }
}
