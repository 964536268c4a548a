//! A bench must notice what happens to a single record on its way from the broker to the consumer. A relay stands
//! between them, decodes what is fetched, and once drops, repeats, swaps or flips a record, sealing the batch anew
//! so that no checksum gives it away. Only the check of the load itself is left to see it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use corelog_model::TopicId;
use corelog_model::batch::{AlignedVec, BatchBuilder, BatchHeader, BatchView, Codec, Patch, RecordRef, Seal};
use corelog_wire::{FrameHeader, Response, decode_response, encode_response};

use crate::broker::Broker;

const HEADER_BYTES: usize = 32;
const FRAME_LIMIT: usize = 64 << 20;

/// What is done to one batch, given as its values.
type Harm = fn(&mut Vec<Vec<u8>>);

struct Relay {
    address: String,
    /// Whether the harm was done.
    done: Arc<AtomicBool>,
}

impl Relay {
    /// Listens; connections are forwarded to the address that `broker` will hold.
    fn start(broker: Arc<Mutex<String>>, harm: Option<Harm>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let done = Arc::new(AtomicBool::new(false));
        let harmed = done.clone();
        // Ends with the test's process: it holds nothing that outlives that.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server =
                    TcpStream::connect(broker.lock().expect("no panic").as_str()).expect("it listens");
                let (from_client, to_server) =
                    (client.try_clone().expect("open"), server.try_clone().expect("open"));
                thread::spawn(move || forward(from_client, to_server));
                let done = harmed.clone();
                thread::spawn(move || Answers { harm, done, opened: HashMap::new() }.relay(server, client));
            }
        });
        Self { address, done }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    // A connection that ends, ends.
    std::io::copy(&mut from, &mut to).ok();
    to.shutdown(std::net::Shutdown::Write).ok();
}

/// The way from the broker to one client.
struct Answers {
    harm: Option<Harm>,
    done: Arc<AtomicBool>,
    /// By handle.
    opened: HashMap<u32, (TopicId, u32)>,
}

impl Answers {
    fn relay(mut self, mut from: TcpStream, mut to: TcpStream) {
        let mut frame = Vec::new();
        loop {
            let mut head = [0; HEADER_BYTES];
            if from.read_exact(&mut head).is_err() {
                break;
            }
            let header = FrameHeader::parse(&head, FRAME_LIMIT).expect("the broker speaks the protocol");
            frame.clear();
            frame.extend_from_slice(&head);
            frame.resize(header.length as usize, 0);
            if from.read_exact(&mut frame[HEADER_BYTES..]).is_err() {
                break;
            }
            self.change(&header, &mut frame);
            if to.write_all(&frame).is_err() {
                break;
            }
        }
        to.shutdown(std::net::Shutdown::Both).ok();
    }

    fn change(&mut self, header: &FrameHeader, frame: &mut Vec<u8>) {
        let response =
            decode_response(header, &frame[HEADER_BYTES..]).expect("the broker speaks the protocol");
        match response {
            Response::Opened { topic, partition, .. } => {
                self.opened.insert(header.handle, (topic, partition));
            }
            Response::Fetched { batches, .. } | Response::Pushed { batches, .. } => {
                let Some(harm) = self.harm else { return };
                let Some(harmed) = harmed(batches, self.opened[&header.handle], harm) else { return };
                if self.done.swap(true, Ordering::SeqCst) {
                    return;
                }
                let mut response = response;
                if let Response::Fetched { batches, .. } | Response::Pushed { batches, .. } = &mut response {
                    *batches = &harmed;
                }
                let mut out = Vec::new();
                encode_response(&response, header.reply_to(), &mut out);
                *frame = out;
            }
            _ => {}
        }
    }
}

/// `batches` with the first of them sealed anew after `harm`; `None` when it has too few records to be harmed.
fn harmed(batches: &[u8], (topic, partition): (TopicId, u32), harm: Harm) -> Option<Vec<u8>> {
    let mut aligned = AlignedVec::<16>::new();
    aligned.extend_from_slice(batches);
    let header = BatchHeader::parse(aligned.get(..96)?).ok()?;
    if header.record_count < 4 {
        return None;
    }
    let mut scratch = AlignedVec::new();
    let view = BatchView::open(&aligned[..header.padded_bytes()], &mut scratch).expect("the batch is sound");
    let stamp = view.record(0).timestamp_us;
    let mut values: Vec<Vec<u8>> =
        view.records().map(|record| record.value.expect("the load sends values").to_vec()).collect();
    harm(&mut values);

    let mut builder = BatchBuilder::new(1 << 20);
    for value in &values {
        let record = RecordRef { key: None, value: Some(value), timestamp_us: stamp, headers: &[] };
        builder.push(record).expect("there is room");
    }
    let seal = Seal {
        topic,
        partition,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        codec: Codec::None,
    };
    let mut out = AlignedVec::new();
    builder.seal(&seal, &mut out).expect("it can be sealed");
    let patch = Patch {
        base_offset: header.base_offset,
        append_timestamp_us: header.append_timestamp_us,
        leader_epoch: header.leader_epoch,
    };
    BatchHeader::patch(&mut out, &patch, topic, partition);
    out.extend_from_slice(&aligned[header.padded_bytes()..]);
    Some(out.to_vec())
}

/// Runs a small bench through a relay.
fn bench(harm: Option<Harm>) -> Output {
    let broker_address = Arc::new(Mutex::new(String::new()));
    let relay = Relay::start(broker_address.clone(), harm);
    let broker = Broker::start(&[&format!("server.advertise={}", relay.address)]);
    broker.address.clone_into(&mut broker_address.lock().expect("no panic"));
    let place = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(env!("CARGO_BIN_EXE_corelog"))
        .args([
            "bench",
            "--format",
            "json",
            "--server",
            &relay.address,
            "--report",
            "report",
            "--rate",
            "max",
        ])
        .args(["--records", "20000", "--record-size", "100", "--batch-bytes", "4096"])
        .args(["--producers", "2", "--partitions", "2", "--consumers", "2"])
        .current_dir(place.path())
        .output()
        .expect("the binary runs");
    assert_eq!(relay.done.load(Ordering::SeqCst), harm.is_some(), "{}", message(&output));
    output
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn check(output: &Output) -> serde_json::Value {
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    results["check"].clone()
}

#[track_caller]
fn assert_fails(harm: Harm, expected: &[(&str, u64)]) {
    let output = bench(Some(harm));
    assert_eq!(output.status.code(), Some(1), "{}", message(&output));
    assert!(message(&output).contains(r#""code":"CHECK""#), "{}", message(&output));
    let check = check(&output);
    for (name, count) in expected {
        assert_eq!(check[name], *count, "{name} in {check}");
    }
    let sum: u64 = ["verified", "expired", "lost"].iter().filter_map(|name| check[name].as_u64()).sum();
    assert_eq!(check["acknowledged"], sum, "{check}");
}

#[test]
fn a_relay_that_changes_nothing_is_not_noticed() {
    let output = bench(None);
    assert!(output.status.success(), "{}", message(&output));
    let check = check(&output);
    assert_eq!((&check["acknowledged"], &check["verified"]), (&20_000.into(), &20_000.into()), "{check}");
}

/// The offsets behind it are off by one then: where the client sees that as a gap it reads the end of the batch again.
#[test]
fn a_dropped_record_fails_the_bench() {
    assert_fails(|values| drop(values.remove(1)), &[("lost", 1), ("corrupted", 0)]);
}

#[test]
fn a_repeated_record_fails_the_bench() {
    // In the place of its successor: offsets stay as they were, and the successor is lost.
    assert_fails(|values| values[2] = values[1].clone(), &[("duplicated", 1), ("lost", 1)]);
}

#[test]
fn two_swapped_records_fail_the_bench() {
    assert_fails(|values| values.swap(1, 2), &[("out_of_order", 1), ("lost", 0), ("duplicated", 0)]);
}

#[test]
fn one_flipped_bit_fails_the_bench() {
    assert_fails(|values| values[1][50] ^= 1, &[("corrupted", 1), ("lost", 1)]);
}
