//! What was sent to a topic of flights, and what of it must be there: whatever was acknowledged, or read once.

use std::collections::BTreeMap;

use corelog_client::{Client, ConsumeError, ConsumerConfig, Partitions, Position, Topic};

/// What a broker said of one partition.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Offsets and the numbers of the records there.
    pub(crate) records: Vec<(u64, u64)>,
    /// Offsets that it named as damaged, first and last.
    pub(crate) damaged: Vec<(u64, u64)>,
    pub(crate) end: u64,
}

/// Every record has a number of its own, which rises.
pub(crate) struct Ledger {
    /// Carriers, and the flights as they are in the file.
    flights: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) next: u64,
    /// By partition and offset: the number of the record that must be there.
    known: BTreeMap<(u32, u64), u64>,
    /// The other way round.
    place: BTreeMap<u64, (u32, u64)>,
}

impl Ledger {
    pub(crate) fn new(lines: Vec<Vec<u8>>) -> Self {
        let carrier = |line: &[u8]| {
            let flight: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            flight["carrier"].as_str().expect("text").as_bytes().to_vec()
        };
        let flights = lines.into_iter().map(|line| (carrier(&line), line)).collect();
        Self { flights, next: 0, known: BTreeMap::new(), place: BTreeMap::new() }
    }

    /// The key and the value of a record: a flight, with its number before it.
    pub(crate) fn record(&self, number: u64) -> (Vec<u8>, Vec<u8>) {
        let (carrier, line) = &self.flights[(number % self.flights.len() as u64) as usize];
        let mut value = format!("{number} ").into_bytes();
        value.extend(line);
        (carrier.clone(), value)
    }

    /// A record is there for good: it was acknowledged, or somebody has read it.
    pub(crate) fn note(&mut self, number: u64, partition: u32, offset: u64) {
        let before = self.known.insert((partition, offset), number);
        assert!(
            before.is_none_or(|before| before == number),
            "{partition}/{offset}: {before:?} and {number}"
        );
        let before = self.place.insert(number, (partition, offset));
        assert!(before.is_none_or(|place| place == (partition, offset)), "record {number} is there twice");
    }

    /// Acknowledged records that lie from there on: a start has said that it cannot account for them.
    pub(crate) fn forget_from(&mut self, partition: u32, first: u64) -> usize {
        let gone: Vec<_> = self.known.range((partition, first)..(partition, u64::MAX)).collect();
        let gone: Vec<_> = gone.into_iter().map(|(place, number)| (*place, *number)).collect();
        for (place, number) in &gone {
            self.known.remove(place);
            self.place.remove(number);
        }
        gone.len()
    }

    /// Reads a partition from its start to its end, past what is damaged, and verifies every byte.
    pub(crate) async fn read(&self, client: &Client, topic: &Topic, partition: u32) -> Found {
        let mut found = Found {
            end: client.offset(topic, partition, Position::End).await.expect("it is served"),
            ..Found::default()
        };
        if found.end == 0 {
            return found;
        }
        let partitions = Partitions::Only(vec![partition]);
        let config = ConsumerConfig { partitions, ..ConsumerConfig::new(topic, Position::Start) };
        let mut consumer = client.consumer(config).await.expect("it is served");
        let mut next = 0;
        while next < found.end {
            match consumer.next().await {
                Ok(mut batch) => {
                    for record in batch.records().expect("it is whole") {
                        let value = record.value.expect("a value");
                        let number = value.split(|&byte| byte == b' ').next().expect("a number");
                        let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
                        let number: u64 = number.expect("each record begins with its number");
                        let (key, whole) = self.record(number);
                        assert!(record.key == Some(&key[..]) && value == whole, "record {number} differs");
                        found.records.push((record.offset, number));
                    }
                    next = batch.next_offset();
                }
                Err(ConsumeError::Damaged { first, last, .. }) => {
                    assert!(
                        first >= next && last >= first,
                        "{first} to {last} are named, {next} was asked for"
                    );
                    found.damaged.push((first, last.min(found.end - 1)));
                    next = last + 1;
                    if next < found.end {
                        consumer.seek(partition, Position::Offset(next)).await.expect("it is served");
                    }
                }
                Err(error) => panic!("partition {partition} from {next} on: {error}"),
            }
        }
        found
    }

    /// All that must be there is, once, in order and where it was, or is named; what else is there stays from now on.
    /// How many known records were named.
    pub(crate) fn compare(&mut self, partition: u32, found: &Found) -> u64 {
        let named =
            |offset: u64| found.damaged.iter().any(|(first, last)| (*first..=*last).contains(&offset));
        let mut next = 0;
        let mut newest = None;
        for &(offset, number) in &found.records {
            assert!(offset >= next, "partition {partition}: {offset} comes behind {next}");
            let silent = (next..offset).find(|missing| !named(*missing));
            assert_eq!(silent, None, "partition {partition}: missing and not named, before {offset}");
            assert!(newest.is_none_or(|newest| newest < number), "partition {partition}: {number} is late");
            assert!(number < self.next, "record {number} was never sent");
            (next, newest) = (offset + 1, Some(number));
        }
        let silent = (next..found.end).find(|missing| !named(*missing));
        assert_eq!(silent, None, "partition {partition}: missing and not named, at its end {}", found.end);
        let known = self.known.range((partition, 0)..(partition, u64::MAX));
        let mut lost = 0;
        for (&(_, offset), number) in known {
            match found.records.binary_search_by_key(&offset, |record| record.0) {
                Ok(at) => assert_eq!(found.records[at].1, *number, "partition {partition}, offset {offset}"),
                Err(_) => {
                    assert!(named(offset), "partition {partition}: record {number} at {offset} is gone");
                    lost += 1;
                }
            }
        }
        for &(offset, number) in &found.records {
            self.note(number, partition, offset);
        }
        lost
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}
