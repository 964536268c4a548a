//! Writes a record and reads it back: `corelog serve` in one terminal, this in another.

use corelog_client::{
    Client, ClientConfig, ClientError, ConsumerConfig, Durability, Partition, Position, RecordRef, wall_us,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    greet("127.0.0.1:9600").await
}

pub(crate) async fn greet(server: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(ClientConfig::new([server])).await?;
    let topic = match client.create_topic("greetings", 4, Durability::Durable).await {
        Err(ClientError::TopicExists) => client.topic("greetings").await?,
        made => made?,
    };
    let producer = client.producer(Default::default());
    let record = RecordRef { value: Some(b"hello"), timestamp_us: wall_us(), ..Default::default() };
    let acked = producer.send(&topic, Partition::Auto, record).await?.await?;
    println!("on stable storage: partition {} offset {}", acked.partition, acked.offset);
    let mut consumer = client.consumer(ConsumerConfig::new(&topic, Position::Start)).await?;
    for record in consumer.next().await?.records()? {
        println!("read back: {}", String::from_utf8_lossy(record.value.unwrap_or_default()));
    }
    Ok(())
}
