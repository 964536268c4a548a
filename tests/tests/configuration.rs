//! Whatever an operator writes: the corpus of the fuzz target `configuration`, replayed with a bounded number of
//! mutations.
//!
//! `CORELOG_GOLDEN=write cargo test -p corelog-tests --test configuration` adds seeds that are missing.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/oracle/configuration.rs"]
mod configuration;
#[path = "../fuzz/oracle/mutate.rs"]
mod mutate;

/// Inputs beyond the corpus in one run of the tests. Each takes the default apart, so there are fewer than elsewhere.
const MUTATIONS: u32 = 5_000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/configuration")
}

/// Every section, every way of saying a key, every kind of value. The default itself is longer than a mutation should
/// be: its keys stand here without their comments.
fn seeds() -> Vec<(&'static str, String)> {
    let default: String = corelog_server::config::DEFAULT
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let seeds = [
        ("empty", ""),
        (
            "server",
            "[server]\nlisten = \"[::1]:0\"\nadvertise = \"broker.example:9600\"\nhttp = \"\"\nmode = \"park\"\nshards = 2\nports = \"one\"\ncpus = \"numa:nodes=0,2;cores=4;no_ht=true\"\n",
        ),
        (
            "log",
            "log.data_dir = '/srv/x'\nlog.retention_bytes = \"64 GiB\"\nlog.buffered = true\nlog.provision = 8\n",
        ),
        (
            "words",
            "[log]\ndurable_method = \"dsync\"\nframes_in_flight = 4\npreparation = \"ahead\"\n[probe]\nmode = \"off\"\n",
        ),
        (
            "limits",
            "[limits]\nconnections = 7_000\nidle_ms = 0\nmax_batch_bytes = 0x10000\n[memory]\nslow_bytes = \"1 B\"\n",
        ),
        (
            "variables",
            "\n---\nCORELOG_SERVER_SPIN_US=7\nCORELOG_LOG_DATA_DIR=/somewhere else\nCORELOG_PROBE_MODE=off\n",
        ),
        (
            "flags",
            "\n---\nserver.mode=poll\nlog.window_bytes = 1 GiB\nlimits.max_frame_bytes=4 MiB\nserver.cpus=any\n",
        ),
        ("all-three", "[server]\nspin_us = 1\n---\nCORELOG_SERVER_SPIN_US=2\nserver.spin_us=3\n"),
        ("unknown", "[server]\ncolour = \"blue\"\n"),
        ("conflict", "\n---\nlog.retention_bytes=256 MiB\n"),
    ];
    let seeds = seeds.into_iter().map(|(name, text)| (name, text.to_owned()));
    seeds.chain([("default", default)]).collect()
}

#[test]
fn every_way_to_say_a_key_is_a_seed() {
    let refused = ["unknown", "conflict"];
    for (name, text) in seeds() {
        let path = corpus().join(name);
        if std::env::var_os("CORELOG_GOLDEN").is_some_and(|word| word == "write") && !path.exists() {
            fs::create_dir_all(corpus()).expect("the corpus can be made");
            fs::write(&path, &text).expect("the corpus can be written");
        }
        assert_eq!(fs::read_to_string(&path).expect("the seed is there"), text, "{name}");
        assert_eq!(configuration::check(text.as_bytes()), !refused.contains(&name), "{name}");
    }
}

#[test]
fn anything_is_a_configuration_or_named() {
    let files = mutate::replay(&corpus(), MUTATIONS, |bytes| {
        configuration::check(bytes);
    });
    assert!(files >= seeds().len());
}
