//! What the wire codec costs for a request: all of it is per batch of some thousand records, so some tens of
//! nanoseconds are nothing, and an allocation would show.

use std::hint::black_box;

use corelog_model::Term;
use corelog_wire::request::HOT_REQUEST_BYTES;
use corelog_wire::response::HOT_RESPONSE_BYTES;
use corelog_wire::{
    Call, Frame, ReplyTo, Request, Response, Split, decode_request, decode_response, encode_request,
    encode_request_head, encode_response, encode_response_head, split,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CALL: Call = Call { correlation: 7, version: 1 };
const TO: ReplyTo = ReplyTo { api: 7, version: 1, handle: 3, correlation: 7 };
const LIMIT: usize = 2 << 20;

fn whole(stream: &[u8]) -> Frame<'_> {
    match split(stream, LIMIT) {
        Ok(Split::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

fn requests(c: &mut Criterion) {
    let batches = vec![0; 128 << 10];
    let fetch = Request::Fetch {
        handle: 3,
        offset: 1_000_000,
        leader_epoch: Some(Term(5)),
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_us: 500_000,
    };
    let produce = Request::Produce { handle: 3, expected_offset: None, batches: &batches };
    let mut group = c.benchmark_group("wire/request");
    group.throughput(Throughput::Elements(1));
    for (name, request) in [("produce", produce), ("fetch", fetch)] {
        let mut stream = Vec::new();
        encode_request(&request, CALL, &mut stream);
        group.bench_function(format!("{name}/encode-head"), |b| {
            let mut out = [0; HOT_REQUEST_BYTES];
            b.iter(|| encode_request_head(black_box(&request), CALL, black_box(&mut out)));
        });
        group.bench_function(format!("{name}/split-and-decode"), |b| {
            b.iter(|| {
                let Frame { header, body } = whole(black_box(&stream));
                decode_request(&header, body).is_ok()
            });
        });
    }
}

fn responses(c: &mut Criterion) {
    let batches = vec![0; 128 << 10];
    let produced = Response::Produced { base_offset: 1, append_timestamp_us: 2, log_start: 0, batches: 1 };
    let fetched =
        Response::Fetched { log_start: 0, high_watermark: 9, leader_epoch: Term(5), batches: &batches };
    let mut group = c.benchmark_group("wire/response");
    group.throughput(Throughput::Elements(1));
    for (name, response) in [("produce", produced), ("fetch", fetched)] {
        let mut stream = Vec::new();
        encode_response(&response, TO, &mut stream);
        let payload_bytes = response.payload().len();
        group.bench_function(format!("{name}/encode-head"), |b| {
            let mut out = [0; HOT_RESPONSE_BYTES];
            b.iter(|| encode_response_head(black_box(&response), TO, payload_bytes, black_box(&mut out)));
        });
        group.bench_function(format!("{name}/split-and-decode"), |b| {
            b.iter(|| {
                let Frame { header, body } = whole(black_box(&stream));
                decode_response(&header, body).is_ok()
            });
        });
    }
}

/// 64 pipelined 4 KiB produce requests, as they lie in a connection's buffer.
fn pipelined(c: &mut Criterion) {
    let batch = vec![0; 4 << 10];
    let mut stream = Vec::new();
    for correlation in 0..64 {
        let request = Request::Produce { handle: 3, expected_offset: None, batches: &batch };
        encode_request(&request, Call { correlation, ..CALL }, &mut stream);
    }
    let mut group = c.benchmark_group("wire/stream");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 x 4 KiB produce", |b| {
        b.iter(|| {
            let mut rest = black_box(&stream[..]);
            let mut bytes = 0;
            while let Ok(Split::Frame(Frame { header, body })) = split(rest, LIMIT) {
                bytes += decode_request(&header, body).map_or(0, |request| request.payload().len());
                rest = &rest[header.frame_bytes()..];
            }
            bytes
        });
    });
}

criterion_group!(wire, requests, responses, pipelined);
criterion_main!(wire);
