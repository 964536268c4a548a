//! `corelog serve` and its operator: how it stops, what it refuses, what it makes of a damaged store.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use corelog_client::{Durability, Partition, Producer, Receipt, RecordRef, Topic};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::broker::{Broker, Place, output};
use crate::random::Random;
use crate::skip::skipped;
use crate::story;

const LEVELS: [Durability; 3] = [Durability::Memory, Durability::Written, Durability::Durable];
/// FORMAT.md.
const SUPERBLOCK_COPY_BYTES: usize = 4096;

/// A record whose acknowledgement came: topic and offset, and what it holds.
type Acknowledged = BTreeMap<(String, u64), Vec<u8>>;

#[test]
fn a_signal_loses_no_record_acknowledged_at_any_level() {
    let mut random = Random::new(0x0051_6e41);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM, Signal::INT] {
        let place = Place::new(&[]);
        let broker = place.start();
        let address = broker.address.clone();
        let (over, is_over) = oneshot::channel();
        let load = thread::spawn(move || story::run(load(&address, is_over)));
        // No synchronisation: the moment of the signal, somewhere in the load.
        thread::sleep(Duration::from_millis(random.within(100..400)));
        assert!(broker.end(signal).success(), "{signal:?}: {}", place.said());
        over.send(()).expect("it waits");
        let acknowledged = load.join().expect("no panic");

        let broker = place.start();
        let found = story::run(read_all(&broker.address));
        for level in LEVELS {
            let of_level = acknowledged.keys().filter(|(topic, _)| topic == level.name()).count();
            println!("{signal:?}: {of_level} records acknowledged at level {}", level.name());
            assert!(of_level > 0, "the signal came into the load");
        }
        assert_contained(&acknowledged, &found);
    }
}

/// Appends to a topic of each level until `over`; answers what was acknowledged.
async fn load(address: &str, over: oneshot::Receiver<()>) -> Acknowledged {
    let client = story::connect(address).await;
    let producer = client.producer(Default::default());
    let mut topics = Vec::new();
    for level in LEVELS {
        topics.push(client.create_topic(level.name(), 1, level).await.expect("it serves"));
    }
    let mut acknowledged = Acknowledged::new();
    tokio::select! {
        () = append_forever(&producer, &topics, &mut acknowledged) => {}
        ended = over => ended.expect("the test waits"),
    }
    acknowledged
}

async fn append_forever(producer: &Producer, topics: &[Topic], acknowledged: &mut Acknowledged) {
    let mut open: Vec<std::collections::VecDeque<(Vec<u8>, Receipt)>> = Vec::new();
    open.resize_with(topics.len(), Default::default);
    for number in 0_u64.. {
        for (topic, open) in topics.iter().zip(&mut open) {
            let value = format!("{number:0>200}").into_bytes();
            let record = RecordRef { value: Some(&value), ..RecordRef::default() };
            let receipt =
                producer.send(topic, Partition::Index(0), record).await.expect("within its deadline");
            open.push_back((value, receipt));
            while let Some(answer) = open.front().and_then(|(_, receipt)| receipt.poll_now()) {
                let (value, _) = open.pop_front().expect("it was at the front");
                let offset = answer.expect("within its deadline").offset;
                acknowledged.insert((topic.name().to_owned(), offset), value);
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn read_all(address: &str) -> Acknowledged {
    let client = story::connect(address).await;
    let mut found = Acknowledged::new();
    for level in LEVELS {
        let topic = client.topic(level.name()).await.expect("it is there");
        let records = story::read(&client, &topic, 0).await;
        let values: Vec<_> = records.iter().map(|(_, value)| value).collect();
        assert!(values.is_sorted_by(|first, second| first < second), "in order, none twice");
        found.extend(records.into_iter().map(|(offset, value)| ((topic.name().to_owned(), offset), value)));
    }
    found
}

#[test]
fn a_ready_broker_says_so_in_one_line_and_nothing_else() {
    let place = Place::new(&["limits.connections=64"]);
    let mut child = place.spawn();
    let mut said = String::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    while !said.ends_with('\n') {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("it becomes ready");
        said.push(char::from(byte[0]));
    }
    let pid = Pid::from_raw(child.id() as i32).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it runs");
    stdout.read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("a child").success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("corelog ready: 127.0.0.1:"), "{said}");
    for part in
        [" mode=park shards=1 cores=any durable=fdatasync frames_in_flight=1, ", " store=", " term=1 start="]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("BUFFERED"), "the test's directory has O_DIRECT: {said}");
}

#[test]
fn a_second_broker_on_the_same_store_is_refused_and_the_first_goes_on() {
    let place = Place::new(&[]);
    let first = place.start();
    let second = place.refused();
    assert_eq!(second.code, Some(1));
    assert!(second.message.starts_with("error[START]: the broker cannot run\n"), "{}", second.message);
    for part in ["cause: another broker uses this store: ", "/store/lock is locked\n", "help: --data-dir "] {
        assert!(second.message.contains(part), "{part} in {}", second.message);
    }
    output(&["topic", "create", "t", "--server", &first.address]);
    // The lock dies with the process, however it dies.
    first.kill();
    place.start().stop();
}

/// Flags, an environment variable, and the parts of what must be said.
type Row = (&'static [&'static str], Option<(&'static str, &'static str)>, &'static [&'static str]);

#[test]
fn what_is_no_configuration_stops_the_start_and_is_named() {
    let place = Place::new(&[]);
    let rows: [Row; 7] = [
        (&["--set", "log.nonsense=1"], None, &["a flag sets `log.nonsense`, which does not exist"]),
        (&["--set", "nonsense.mode=1"], None, &["`nonsense.mode`"]),
        (&["--set", "log.extent_bytes"], None, &["`log.extent_bytes` is not of the form section.key=value"]),
        (&["--set", "log.extent_bytes=3 MB"], None, &["`log.extent_bytes` to `3 MB`; it takes "]),
        (&["--set", "log.window_bytes=4 MiB"], None, &["`log.window_bytes` and `limits.max_batch_bytes`: "]),
        (&[], Some(("CORELOG_LOG_NONSENSE", "1")), &["variable CORELOG_LOG_NONSENSE sets `log.nonsense`"]),
        (&[], Some(("CORELOG_PROBE_MODE", "on")), &["CORELOG_PROBE_MODE", "`on`; it takes auto or off"]),
    ];
    for (flags, variable, parts) in rows {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(place.store());
        command.args(flags).envs(variable);
        let refused = command.output().expect("it runs");
        assert_eq!(refused.status.code(), Some(2), "{flags:?} {variable:?}: {}", message(&refused));
        assert!(message(&refused).starts_with("error[CONFIG]: the configuration is refused\ncause: "));
        assert!(parts.iter().all(|part| message(&refused).contains(part)), "{}", message(&refused));
        assert!(refused.stdout.is_empty(), "it was never ready");
        assert!(!place.store().exists(), "nothing was begun");
    }

    for (name, value) in [("CORELOG_LOG_DATA_DIR", &b"/\xff"[..]), ("CORELOG_\u{fe}", b"\xff")] {
        let mut command = place.command();
        command.env(name, OsStr::from_bytes(value)).env("LS_COLORS", OsStr::from_bytes(b"\xff"));
        let refused = command.output().expect("it runs");
        assert_eq!(refused.status.code(), Some(2), "{}", message(&refused));
        let named = format!("cause: the environment variable {name} is not UTF-8");
        assert!(message(&refused).contains(&named), "{}", message(&refused));
    }

    let file = place.store().with_extension("toml");
    fs::write(&file, "[log]\nextent_size = 1\n").expect("written");
    let refused = place.command().arg("--config").arg(&file).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    let named = "store.toml sets `log.extent_size`, which does not exist";
    assert!(message(&refused).contains(named), "{}", message(&refused));
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_other_programs_keep_in_the_environment_is_not_looked_at() {
    let place = Place::new(&[]);
    let mut command = place.command();
    command.env("LS_COLORS", OsStr::from_bytes(b"\xff")).env("XCORELOG_LOG_NONSENSE", "1");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut ready = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut ready).expect("text");
    child.kill().expect("it runs");
    child.wait().expect("a child");
    assert!(ready.starts_with("corelog ready: "), "{ready}");
}

#[test]
fn with_too_little_locked_memory_the_start_is_refused_and_what_to_type_is_said() {
    let place = Place::new(&[]);
    let serve = place.command();
    for format in [[].as_slice(), &["--format", "json"]] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -l 64 && exec \"$@\"", "sh"]).arg(serve.get_program());
        let refused = command.args(serve.get_args()).args(format).output().expect("it runs");
        assert_eq!(refused.status.code(), Some(1), "{}", message(&refused));
        assert!(refused.stdout.is_empty(), "it was never ready");
        let text = message(&refused);
        let (cause, help) =
            ("only 64 KiB of memory may be locked, 512 are needed", "`ulimit -l unlimited`, in systemd");
        if format.is_empty() {
            for part in ["error[START]: ", &format!("\ncause: {cause}\nhelp: {help}")] {
                assert!(text.contains(part), "{part} in {text}");
            }
            assert_eq!(text.matches("help: ").count(), 1, "{text}");
        } else {
            let last: serde_json::Value =
                serde_json::from_str(text.lines().last().expect("a line")).expect("a document");
            assert_eq!(last["error"]["cause"], cause);
            assert!(last["error"]["help"].as_str().is_some_and(|said| said.starts_with(help)), "{text}");
        }
    }
}

/// A file system in memory without O_DIRECT (tmpfs has it since Linux 6.6); unmounted when dropped.
struct Ramfs(tempfile::TempDir);

impl Ramfs {
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().expect("a temporary directory");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "ramfs", "ramfs"]).arg(place.path()).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(place))
    }
}

impl Drop for Ramfs {
    fn drop(&mut self) {
        // The kernel lets go of a killed process' ring, and with it of the files, a little later: lazily.
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

#[test]
fn without_o_direct_the_start_is_refused_and_the_way_out_is_named() {
    let Some(ramfs) = Ramfs::mount() else {
        return skipped("only root mounts a file system that has no O_DIRECT");
    };
    let place = Place::at(ramfs.0.path().join("store"), &[]);
    let refused = place.refused();
    assert_eq!(refused.code, Some(1));
    for part in ["error[START]", "O_DIRECT", "help: ", "`--set log.buffered=true`"] {
        assert!(refused.message.contains(part), "{part} in {}", refused.message);
    }
    assert!(sizes(&place.log()).is_empty(), "nothing was begun");
}

/// Through the page cache a crash of the process, not of the machine, loses nothing that was written.
#[test]
fn without_o_direct_a_broker_that_may_do_without_says_so_and_keeps_what_it_wrote() {
    let Some(ramfs) = Ramfs::mount() else {
        return skipped("only root mounts a file system that has no O_DIRECT");
    };
    let mut random = Random::new(0x0b0f_fe4d);
    for round in 0..3 {
        let store = ramfs.0.path().join(format!("store-{round}"));
        let place = Place::at(store, &["log.buffered=true", "log.extent_bytes=5 MiB"]);
        let broker = place.start();
        for part in [" durable=fdatasync frames_in_flight=1,", " BUFFERED (no O_DIRECT) "] {
            assert!(broker.ready.contains(part), "{part} in {}", broker.ready);
        }
        let address = broker.address.clone();
        let (over, is_over) = oneshot::channel();
        let load = thread::spawn(move || story::run(load(&address, is_over)));
        // No synchronisation: the moment of the kill, somewhere in the load.
        thread::sleep(Duration::from_millis(random.within(200..500)));
        broker.kill();
        over.send(()).expect("it waits");
        let mut acknowledged = load.join().expect("no panic");
        acknowledged.retain(|(topic, _), _| topic != Durability::Memory.name());
        println!("round {round}: {} records acknowledged as durable or written", acknowledged.len());
        assert!(!acknowledged.is_empty(), "the kill came into the load");

        for term in [2, 3] {
            let broker = place.start();
            assert!(broker.ready.contains(&format!(" term={term} ")), "{}", broker.ready);
            let found = story::run(read_all(&broker.address));
            assert_contained(&acknowledged, &found);
            broker.kill();
        }
    }
}

#[track_caller]
fn assert_contained(acknowledged: &Acknowledged, found: &Acknowledged) {
    let lost: Vec<_> = acknowledged.iter().filter(|(at, value)| found.get(at) != Some(value)).collect();
    assert!(lost.is_empty(), "{} of {} are lost, first {:?}", lost.len(), acknowledged.len(), lost[0].0);
}

#[test]
fn a_store_is_served_from_any_whole_superblock_copy_and_refused_without_one() {
    let place = Place::new(&[]);
    let broker = place.start();
    story::run(async {
        let client = story::connect(&broker.address).await;
        let topic = client.create_topic("t", 1, Durability::Durable).await.expect("it serves");
        let offset = story::append(&client.producer(Default::default()), &topic, 0, b"kept").await;
        assert_eq!(offset, Ok(0));
    });
    broker.stop();
    let superblock = place.log().join("superblock");
    let copies = fs::metadata(&superblock).expect("it is there").len() as usize / SUPERBLOCK_COPY_BYTES;
    assert_eq!(copies, 4);

    let mut terms = 1;
    for good in 0..copies {
        corrupt(&superblock, &[good]);
        terms += 1;
        assert_kept(place.start(), terms);
        let others: Vec<usize> = (0..copies).filter(|&copy| copy != good).collect();
        corrupt(&superblock, &others);
        terms += 1;
        assert_kept(place.start(), terms);
    }

    let whole = fs::read(&superblock).expect("read");
    corrupt(&superblock, &(0..copies).collect::<Vec<_>>());
    let before = sizes(&place.log());
    let refused = place.refused();
    assert_eq!(refused.code, Some(1));
    let named = "none of the four superblock copies verifies";
    assert!(refused.message.contains(named), "{}", refused.message);
    fs::remove_file(&superblock).expect("removed");
    let named = "superblock is missing, and with it a log";
    assert!(place.refused().message.contains(named), "extents without a superblock are no empty store");
    let aside = place.log().with_extension("aside");
    fs::rename(place.log(), &aside).expect("moved");
    fs::create_dir(place.log()).expect("made");
    assert!(place.refused().message.contains(named), "nor is a directory that is not mounted");
    assert_eq!(fs::read_dir(place.log()).expect("there").count(), 0, "and nothing is begun in it");
    fs::remove_dir(place.log()).expect("empty");
    fs::rename(&aside, place.log()).expect("moved");
    fs::write(&superblock, &whole).expect("written");
    assert_eq!(sizes(&place.log()), before, "a refused start leaves the log alone");
    assert_kept(place.start(), terms + 1);
}

/// Flips a bit in the middle of these copies.
fn corrupt(superblock: &Path, copies: &[usize]) {
    let mut bytes = fs::read(superblock).expect("read");
    for copy in copies {
        bytes[copy * SUPERBLOCK_COPY_BYTES + 56] ^= 0x10;
    }
    fs::write(superblock, bytes).expect("written");
}

#[track_caller]
fn assert_kept(broker: Broker, term: u32) {
    assert!(broker.ready.contains(&format!(" term={term} ")), "each start is a new term: {}", broker.ready);
    let records = story::run(async {
        let client = story::connect(&broker.address).await;
        let topic = client.topic("t").await.expect("it is kept");
        story::read(&client, &topic, 0).await
    });
    assert_eq!(records, [(0, b"kept".to_vec())]);
    broker.stop();
}

/// Name and size of every file.
fn sizes(directory: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it is read"));
    let size = |entry: fs::DirEntry| {
        (entry.file_name().into_string().expect("text"), entry.metadata().expect("it is there").len())
    };
    entries.map(size).collect()
}

/// The simulator restarts a hundred times; this many on a real disk show that the broker adds nothing to it.
#[test]
fn empty_restarts_do_not_grow_the_store() {
    const RESTARTS: u32 = 24;
    const EXTENT_BYTES: u64 = 1 << 20;
    let place = Place::new(&[
        "log.extent_bytes=1 MiB",
        "log.frame_bytes=64 KiB",
        "limits.max_batch_bytes=128 KiB",
        "limits.max_frame_bytes=256 KiB",
    ]);
    let broker = place.start();
    output(&["topic", "create", "t", "--partitions", "4", "--server", &broker.address]);
    broker.stop();
    let before: u64 = sizes(&place.log()).values().sum();
    for restart in 0..RESTARTS {
        let broker = place.start();
        if restart % 2 == 0 { broker.stop() } else { broker.kill() }
    }
    let after: u64 = sizes(&place.log()).values().sum();
    assert!(after <= before + 2 * EXTENT_BYTES, "{RESTARTS} restarts: from {before} to {after} bytes");
    let broker = place.start();
    assert!(output(&["topic", "list", "--server", &broker.address]).starts_with("t  4 partitions"));
}
