//! The same stories with a broker of the first release, which has to be asked for each answer.

#[path = "../pushed/consume.rs"]
#[expect(clippy::duplicate_mod, reason = "each story is told with both kinds of broker")]
mod consume;

async fn broker() -> crate::broker::Broker {
    crate::broker::Broker::first_release().await
}
