//! What must hold for any bytes that stand where the log should hold a part of the shard's state: the oracle of the
//! fuzz target `shard_entry`, and the replay of its corpus. Built for these two only.
//!
//! What is read is written again and must be the same; what is refused changes nothing; what is accepted takes no more
//! memory than its bytes justify and can be worked on.

use std::collections::BTreeMap;

use corelog_model::{LogId, limits::MAX_PARTITIONS_PER_TOPIC};
use corelog_storage::CheckpointKind;

use crate::checkpoint::{Encoder, State, View, encode};
use crate::codec::RISING_LIMIT;
use crate::metadata::{Command, Metadata};
use crate::partition::Epochs;
use crate::position::{Change, Positions};
use crate::producer_state::{ProducerLimits, Producers};

#[cfg(test)]
#[path = "../../../tests/fuzz/oracle/mutate.rs"]
mod mutate;

const STORE: u64 = 7;
const LIMITS: ProducerLimits = ProducerLimits { pairs: 100, expiry_us: 1000, keep_us: 100 };
const POSITIONS: u32 = 100;
/// The least that an item of a checkpoint takes.
const LEAST_ITEM_BYTES: usize = 30;

/// The first of `bytes` says what the rest is: parts of checkpoints, commands of the metadata group, or entries of the
/// positions group; each with its length (u16) before it. Returns whether all of them were accepted.
pub fn shard_entry(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    let mut state = empty();
    match which % 3 {
        0 => pieces(bytes).all(|piece| command(piece, &mut state.metadata)),
        2 => pieces(bytes).all(|piece| change(piece, &mut state.positions)),
        _ => {
            let whole = pieces(bytes).all(|part| state.decode(part).is_ok());
            whole && restored(state, bytes.len())
        }
    }
}

fn empty() -> State {
    let (metadata, producers) = (Metadata::new(STORE), Producers::new(LIMITS));
    State { metadata, groups: BTreeMap::new(), producers, positions: Positions::new(POSITIONS) }
}

fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (piece, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        bytes = rest;
        Some(piece)
    })
}

fn command(bytes: &[u8], metadata: &mut Metadata) -> bool {
    let Some(command) = Command::decode(bytes) else { return false };
    let mut again = Vec::new();
    command.encode(&mut again);
    assert_eq!(again, bytes, "all of {command:?} is read");
    if let Command::Creating(spec) | Command::Held(spec) = &command {
        assert!((1..=MAX_PARTITIONS_PER_TOPIC).contains(&spec.partitions()));
    }
    let before = metadata.clone();
    match metadata.apply(LogId(0), &command) {
        Ok(()) => metadata.check(),
        Err(_) => assert_eq!(*metadata, before, "a refused {command:?} changes nothing"),
    }
    true
}

fn change(bytes: &[u8], positions: &mut Positions) -> bool {
    let Some(change) = Change::decode(bytes) else { return false };
    let mut again = Vec::new();
    change.encode(&mut again);
    assert_eq!(again, bytes, "all of {change:?} is read");
    let (before, forgets) = (positions.len(), change.position.is_none());
    positions.apply(change, 0);
    positions.check(|_| true);
    assert!(positions.len() <= before + u32::from(!forgets));
    true
}

/// The state of checkpoints, each part of which was accepted.
fn restored(mut state: State, bytes: usize) -> bool {
    let named = state.positions.len() as usize;
    let items = state.metadata.topics.len() + state.groups.len() + state.producers.len() + named;
    assert!(items * LEAST_ITEM_BYTES <= bytes, "{items} items of {bytes} bytes");
    sound(&state);
    // As a start does, and then the first checkpoint after it.
    let topics = state.metadata.topics.len();
    state.drop_closed(LogId(0));
    state.producers.trim();
    sound(&state);
    state.positions.check(|group| state.groups.contains_key(&group));
    assert!(state.producers.len() <= LIMITS.pairs as usize);
    assert_eq!(state.metadata.topics.len(), topics);
    let again = parts_of(&state);
    let mut back = empty();
    for part in &again {
        back.decode(part).expect("what was written is read");
    }
    assert_eq!(back.metadata, state.metadata);
    assert_eq!(format!("{:?}", back.groups), format!("{:?}", state.groups));
    assert!(back.positions.iter(true).eq(state.positions.iter(true)));
    assert_eq!(parts_of(&back), again, "the same state is the same bytes");
    true
}

fn sound(state: &State) {
    let metadata = &state.metadata;
    metadata.check();
    state.producers.check();
    state.positions.check(|_| true);
    let next_index = state.positions.next_index;
    let Metadata { next_topic, next_group, producer_ids_end, .. } = *metadata;
    for rising in [metadata.next_index, next_topic, next_group, producer_ids_end, next_index] {
        assert!(rising <= RISING_LIMIT, "{rising} has room to rise");
    }
    for (group, partition) in &state.groups {
        assert_eq!(*group, partition.group);
        let cursors = partition.cursors();
        assert!(cursors.log_start <= cursors.log_end && cursors.log_end <= RISING_LIMIT);
        assert!(partition.next_index <= RISING_LIMIT);
        assert!(partition.epochs.entries().len() <= Epochs::MAX);
        assert!(partition.epochs.entries().iter().all(|epoch| epoch.start <= cursors.log_end));
    }
}

fn parts_of(state: &State) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let State { metadata, producers, positions, .. } = state;
    let view = View { metadata, metadata_changed: true, producers, positions };
    let mut encoder = Encoder::default();
    let groups = state.groups.values();
    encode(CheckpointKind::Full, &view, groups, 1000, &mut encoder, &mut |part| parts.push(part.to_vec()));
    parts
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use corelog_model::{Durability, GroupId, ProducerId, Retention, Term, TopicId};

    use super::*;
    use crate::partition::Partition;
    use crate::position::Position;
    use crate::producer_state::{Identity, Remembered};
    use crate::spec::{Alteration, TopicSpec};

    /// Inputs beyond the corpus in one run of the tests.
    const MUTATIONS: u32 = 50_000;

    fn joined(which: u8, pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![which];
        for piece in pieces {
            bytes.extend(u16::try_from(piece.len()).expect("a seed is short").to_le_bytes());
            bytes.extend(piece);
        }
        bytes
    }

    fn creating(metadata: &Metadata, name: &str, partitions: usize) -> (TopicId, Command) {
        let topic = metadata.next_topic_id();
        let first_group = GroupId(metadata.next_group);
        let placement = vec![LogId(0); partitions];
        let spec = TopicSpec::new(topic, name.to_owned(), Durability::Written, first_group, placement);
        (topic, Command::Creating(Arc::new(spec)))
    }

    fn commands() -> Vec<Command> {
        let mut metadata = Metadata::new(STORE);
        let mut commands = vec![Command::ProducerIds { end: 1001 }];
        let log = LogId(0);
        for name in ["orders", "payments"] {
            let (topic, command) = creating(&metadata, name, 3);
            metadata.apply(LogId(0), &command).expect("a new topic");
            let opening = [command, Command::Opened { topic, log }, Command::Ready { topic }];
            let closing =
                [Command::Deleting { topic }, Command::Closed { topic, log }, Command::Deleted { topic }];
            commands.extend(opening.into_iter().chain(closing));
        }
        commands
    }

    fn changes(group: GroupId) -> Vec<Change> {
        let position = Position { offset: 9, leader_epoch: Some(Term(3)), commit_us: 5, metadata: "".into() };
        let unread = Position { leader_epoch: None, metadata: "größe".into(), ..position };
        let change = |name: &str, position| Change { group, name: name.into(), position };
        vec![change("a", Some(position)), change("b: c", Some(unread)), change("a", None)]
    }

    /// Two topics; the first gets a second span, one alteration of it is undone and one is under way, and what a log that
    /// does not decide would keep of it.
    fn alterations() -> Vec<Command> {
        let mut metadata = Metadata::new(STORE);
        let (mut commands, log) = (Vec::new(), LogId(0));
        let mut topics = Vec::new();
        for name in ["orders", "payments"] {
            let (topic, command) = creating(&metadata, name, 3);
            for command in [command, Command::Opened { topic, log }, Command::Ready { topic }] {
                metadata.apply(log, &command).expect("in order");
                commands.push(command);
            }
            topics.push(topic);
        }
        let topic = topics[0];
        let altering = |metadata: &Metadata, more: usize, durability| {
            let first_group = GroupId(if more > 0 { metadata.next_group } else { 0 });
            let (retention, added) = (Retention::default(), vec![log; more]);
            Command::Altering(Alteration { topic, durability, retention, first_group, added })
        };
        let rows: [(usize, Durability, &[Command]); 3] = [
            (2, Durability::Durable, &[Command::Opened { topic, log }, Command::Ready { topic }]),
            (
                1,
                Durability::Memory,
                &[
                    Command::Opened { topic, log },
                    Command::Reverting { topic },
                    Command::Closed { topic, log },
                    Command::Reverted { topic },
                ],
            ),
            (0, Durability::Written, &[]),
        ];
        for (more, durability, rest) in rows {
            let first = altering(&metadata, more, durability);
            for command in [first].into_iter().chain(rest.iter().cloned()) {
                metadata.apply(log, &command).expect("in order");
                commands.push(command);
            }
        }
        commands.push(Command::Held(Arc::clone(&metadata.topics[&topic].spec)));
        commands
    }

    /// What checkpoints say of these topics, one of them altered right now, with a partition of each span.
    fn altered_state() -> State {
        let mut state = empty();
        let commands = alterations();
        for command in &commands[..commands.len() - 1] {
            state.metadata.apply(LogId(0), command).expect("in order");
        }
        for topic in state.metadata.topics.values() {
            for (number, group) in topic.open_in(LogId(0)) {
                let partition = Partition::new(group, topic.spec.topic, number, topic.spec.durability);
                state.groups.insert(group, partition);
            }
        }
        state
    }

    /// A topic of two partitions with records, epochs and producers.
    fn state() -> State {
        let mut state = empty();
        let (topic, command) = creating(&state.metadata, "orders", 2);
        for command in [command, Command::Opened { topic, log: LogId(0) }, Command::Ready { topic }] {
            state.metadata.apply(LogId(0), &command).expect("in order");
        }
        let opened: Vec<_> = state.metadata.topics[&topic].open_in(LogId(0)).collect();
        for (number, group) in opened {
            let mut partition = Partition::new(group, topic, number, Durability::Written);
            for n in 0..9_u32 {
                let (first, base_offset) = (n / 3, partition.cursors().log_end);
                let producer = ProducerId(1 + u64::from(n % 3));
                let identity = Identity { producer, epoch: 0, first, last: first };
                let at = Remembered { first, last: first, base_offset, append_us: 5, frame: 0 };
                state.producers.appended(group, partition.next_index, identity, at, at.append_us);
                partition.appended(Term(1 + n / 4), base_offset + 1, at.append_us);
            }
            state.groups.insert(group, partition);
        }
        state
    }

    fn seeds() -> Vec<(String, Vec<u8>)> {
        let encoded = |command: &Command| {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            bytes
        };
        let life: Vec<_> = commands().iter().map(encoded).collect();
        let mut seeds = vec![("commands".to_owned(), joined(0, &life))];
        seeds.extend(
            life.into_iter()
                .take(7)
                .enumerate()
                .map(|(at, one)| (format!("command-{at}"), joined(0, &[one]))),
        );
        let changes = changes(GroupId(16)).into_iter().map(|change| {
            let mut bytes = Vec::new();
            change.encode(&mut bytes);
            bytes
        });
        seeds.push(("positions".to_owned(), joined(2, &changes.collect::<Vec<_>>())));
        let mut positioned = state();
        for change in self::changes(GroupId(17)).into_iter().take(2) {
            positioned.positions.next_index += 1;
            positioned.positions.apply(change, 0);
        }
        seeds.push(("checkpoint-positions".to_owned(), joined(1, &parts_of(&positioned))));
        let full = parts_of(&state());
        let alterations: Vec<_> = alterations().iter().map(encoded).collect();
        seeds.push(("alterations".to_owned(), joined(0, &alterations)));
        seeds.extend(
            alterations
                .into_iter()
                .skip(7)
                .enumerate()
                .map(|(at, one)| (format!("alteration-{at}"), joined(0, &[one]))),
        );
        seeds.push(("checkpoint-altered".to_owned(), joined(1, &parts_of(&altered_state()))));
        seeds.push(("checkpoint-empty".to_owned(), joined(1, &parts_of(&empty()))));
        seeds.push(("checkpoint".to_owned(), joined(1, &full)));
        seeds.push(("checkpoint-twice".to_owned(), joined(1, &[full.clone(), full].concat())));
        seeds
    }

    /// `CORELOG_GOLDEN=write cargo test -p corelog-shard fuzz` adds seeds that are missing.
    #[test]
    fn any_entry_is_read_or_refused() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/shard_entry");
        let seeds = seeds();
        for (name, seed) in &seeds {
            let path = corpus.join(name);
            if std::env::var_os("CORELOG_GOLDEN").is_some_and(|word| word == "write") && !path.exists() {
                fs::create_dir_all(&corpus).expect("the corpus can be made");
                fs::write(&path, seed).expect("the corpus can be written");
            }
            assert!(fs::read(&path).expect("the seed is there") == *seed, "{name}");
            assert!(shard_entry(seed), "{name}: a seed is accepted");
        }
        let files = mutate::replay(&corpus, MUTATIONS, |bytes| {
            shard_entry(bytes);
        });
        assert!(files >= seeds.len());
    }
}
