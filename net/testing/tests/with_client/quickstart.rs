//! The example that README shows does what it says, the second time too.

use corelog_testing::Broker;

use crate::{client, read_all};

#[expect(dead_code, reason = "its main asks the broker on the default port")]
#[path = "../../../client/examples/quickstart.rs"]
mod example;

#[tokio::test]
async fn the_quickstart_writes_a_record_and_reads_it_back_however_often_it_is_run() {
    let broker = Broker::start().expect("a broker");
    for round in 1..=3 {
        example::greet(&broker.address().to_string()).await.expect("it runs");
        let client = client(&broker).await;
        let topic = client.topic("greetings").await.expect("it is there");
        let values = read_all(&client, &topic).await.concat();
        assert_eq!(values, vec![b"hello".to_vec(); round]);
    }
}
