//! The bytes of every released version of every message, replayed for ever: an old client must be understood by a
//! new broker, and the reverse. A difference here means that a released version was changed: make a new one.
//!
//! `CORELOG_GOLDEN=write cargo test -p corelog-wire --test wire` writes files that are missing, and the index;
//! it never overwrites a file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::samples::{only_frame, request_frame, requests, response_frame, responses};
use corelog_wire::{Request, Response, decode_request, decode_response};

/// Of messages of this version.
fn folder(version: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

/// Versions that some message has.
const VERSIONS: [u8; 2] = [1, 2];

/// The requests that need this version.
fn requests_of(version: u8) -> impl Iterator<Item = (&'static str, Request<'static>)> {
    requests().into_iter().filter(move |(_, request)| request.version() == version)
}

/// The responses, which are all of version 1.
fn responses_of(version: u8) -> impl Iterator<Item = (&'static str, Response<'static>)> {
    responses().into_iter().filter(move |_| version == 1)
}

fn writing() -> bool {
    std::env::var_os("CORELOG_GOLDEN").is_some_and(|word| word == "write")
}

/// The file's bytes; written first when that is asked for and it is not there.
fn golden(version: u8, name: &str, expected: &[u8]) -> Vec<u8> {
    let path = folder(version).join(name);
    if writing() && !path.exists() {
        fs::write(&path, expected).expect("the golden folder can be written");
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_least_version_of_every_request() {
    for (name, request) in requests() {
        let bytes = golden(request.version(), &format!("request-{name}.bin"), &request_frame(&request));
        let frame = only_frame(&bytes);
        assert_eq!(decode_request(&frame.header, frame.body), Ok(request), "{name}: read");
        assert_eq!(request_frame(&request), bytes, "{name}: written");
    }
}

#[test]
fn version_1_of_every_response() {
    for (name, response) in responses() {
        let bytes = golden(1, &format!("response-{name}.bin"), &response_frame(&response));
        let frame = only_frame(&bytes);
        assert_eq!(decode_response(&frame.header, frame.body).as_ref(), Ok(&response), "{name}: read");
        assert_eq!(response_frame(&response), bytes, "{name}: written");
    }
}

#[test]
fn the_index_says_what_each_file_holds() {
    for version in VERSIONS {
        let mut index = format!("What the golden files of version {version} hold: name, length, value.\n");
        for (name, request) in requests_of(version) {
            let length = request_frame(&request).len();
            write!(index, "\nrequest-{name}.bin, {length} bytes\n{request:x?}\n")
                .expect("a string takes text");
        }
        for (name, response) in responses_of(version) {
            let length = response_frame(&response).len();
            write!(index, "\nresponse-{name}.bin, {length} bytes\n{response:x?}\n")
                .expect("a string takes text");
        }
        let path = folder(version).join("INDEX.txt");
        if writing() {
            fs::write(&path, &index).expect("the golden folder can be written");
        }
        assert_eq!(fs::read_to_string(&path).expect("the index is there"), index);
    }
}

#[test]
fn no_file_is_without_a_test() {
    for version in VERSIONS {
        let known = |name: &str| {
            requests_of(version).any(|(known, _)| name == format!("request-{known}.bin"))
                || responses_of(version).any(|(known, _)| name == format!("response-{known}.bin"))
                || name == "INDEX.txt"
        };
        for entry in fs::read_dir(folder(version)).expect("the golden folder is there") {
            let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
            assert!(known(&name), "{name} is not replayed");
        }
    }
}
