//! A consumer of a broker that pushes.

mod consume;
mod subscribe;

async fn broker() -> crate::broker::Broker {
    crate::broker::Broker::start(crate::broker::Faults::default(), 1).await
}
