//! A thousand partitions on one log: restarted and checkpointed; every end and every epoch is where it was.

use corelog_model::{Durability, Term};
use corelog_shard::Refusal;
use corelog_storage::LogConfig;
use corelog_tests::machine::Machine;
use corelog_tests::script::{From, batch, create, fetch, find, machine, open, produce, restart, small_log};

const PARTITIONS: u32 = 1_000;

fn log() -> LogConfig {
    LogConfig {
        extent_bytes: 512 << 10,
        checkpoint_bytes: 256 << 10,
        max_batch_bytes: 16 << 10,
        frame_target_bytes: 32 << 10,
        entries_in_window: 1024,
        ..small_log()
    }
}

/// Appends a record to each partition that `chosen` names; all of them end where they should.
fn append(machine: &mut Machine, ends: &mut [u64], chosen: impl Fn(u32) -> bool) {
    let topic = find(machine, "many").expect("the topic is there");
    for partition in (0..PARTITIONS).filter(|partition| chosen(*partition)) {
        open(machine, topic, partition).expect("it serves");
        let end = &mut ends[partition as usize];
        assert_eq!(
            produce(machine, &batch(topic, partition, 0..1, From::default())),
            Ok(*end),
            "{partition}"
        );
        *end += 1;
    }
}

#[test]
fn a_thousand_partitions_keep_their_ends_and_epochs_over_restarts_and_checkpoints() {
    let mut machine = machine(log(), 11);
    let topic = create(&mut machine, "many", PARTITIONS, Durability::Durable);
    let mut ends = vec![0; PARTITIONS as usize];
    // Where each term ended: in term 1 all of them got a record, in 2 every second one, in 3 every third one.
    let mut ends_of_terms = Vec::new();
    for stride in 1..=3_u32 {
        append(&mut machine, &mut ends, |partition| partition % stride == 0);
        ends_of_terms.push(ends.clone());
        restart(&mut machine);
    }
    // So much behind it that only checkpoints know of those terms.
    for _ in 0..4 {
        append(&mut machine, &mut ends, |partition| partition % 10 != 7);
    }
    assert!(machine.shard().expect("ready").status().storage.checkpoints > 4);
    restart(&mut machine);

    let status = machine.shard().expect("ready").status();
    assert_eq!((status.partitions, status.storage.damaged_ranges), (PARTITIONS, 0));
    for partition in 0..PARTITIONS {
        let opened = open(&mut machine, topic, partition).expect("it serves");
        let end = ends[partition as usize];
        assert_eq!((opened.high_watermark, opened.epoch), (end, Term(5)), "{partition}");
        for (term, ends) in (1..).zip(&ends_of_terms) {
            // Who believes in records of that term behind its end learns where it ended.
            let offset = ends[partition as usize];
            let believed = fetch(&mut machine, end + 1, Some(Term(term)));
            assert_eq!(believed, Err(Refusal::LogTruncated { offset }), "{partition} in term {term}");
        }
    }
}
