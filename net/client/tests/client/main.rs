//! The client against a broker of the test's own, over loopback, that fails as told.

mod broker;
mod cancel;
mod fetched;
mod grow;
mod offsets;
mod places;
mod poll_points;
mod polls;
mod positions;
mod produce;
mod pushed;

use std::time::Duration;

use corelog_client::{Client, ClientConfig, RecordRef};

fn record(value: &[u8]) -> RecordRef<'_> {
    RecordRef { value: Some(value), timestamp_us: 1, ..RecordRef::default() }
}

/// A client that loses no time between attempts.
async fn client(broker: &broker::Broker) -> Client {
    let mut config = ClientConfig::new([broker.address()]);
    config.backoff.first = Duration::from_millis(1);
    config.backoff.most = Duration::from_millis(5);
    config.seed = Some(1);
    Client::connect(config).await.unwrap()
}
