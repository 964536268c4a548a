//! The command line: every subcommand and flag. Values are parsed here; what they mean is the commands' business.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use corelog_model::limits::is_position_name;
use corelog_server::placement::Cpus;

/// The broker and its tools.
#[derive(Debug, Parser)]
#[command(
    name = "corelog",
    version,
    about = "An event broker that acknowledges what is durable",
    propagate_version = true
)]
pub struct Cli {
    /// How results are printed on standard output.
    #[arg(long, value_enum, global = true, default_value_t = Format::Text)]
    pub format: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One document, or one a line where results come one by one.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker on this machine.
    Serve(Serve),
    /// Show the configuration.
    #[command(subcommand)]
    Config(Config),
    /// Create, list, describe, alter and delete topics.
    #[command(subcommand)]
    Topic(Topic),
    /// Append the lines of a file, or of standard input, to a topic.
    Produce(Produce),
    /// Print the records of a topic.
    Consume(Consume),
    /// List, show, reset and delete positions: how far consumers with a name have come.
    #[command(subcommand)]
    Position(Position),
    /// Delete records.
    #[command(subcommand)]
    Records(Records),
    /// Measure a broker: throughput, latency, CPU, and that nothing is lost.
    Bench(Bench),
    /// Look into a stopped store.
    #[command(subcommand)]
    Log(Log),
}

/// `corelog serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// A TOML file; see `corelog config default`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Give the store of an older version all that this one can do, as `log.finalise`: there is no way back.
    #[arg(long)]
    pub finalise: bool,
    /// Where the store is, as `log.data_dir`.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where clients connect, as `server.listen`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// How an idle core waits, as `server.mode`.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// How many cores serve, as `server.shards`.
    #[arg(long, value_name = "N|auto")]
    pub shards: Option<String>,
    /// Which cores: all, any, a number of them, 0-3,8, numa:nodes=0;cores=4;no_ht=true; as `server.cpus`.
    #[arg(long, value_name = "CPUS")]
    pub cpus: Option<String>,
    /// Any key of the configuration; wins over file and environment.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// `server.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Never sleeps: a whole core, the lowest latency.
    Poll,
    /// Spins for a while, then sleeps.
    Adaptive,
    /// Sleeps at once.
    Park,
}

impl Mode {
    /// The word that the configuration uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Adaptive => "adaptive",
            Self::Park => "park",
        }
    }
}

/// `corelog config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print every key with its default and what it does: a file to start from.
    Default,
}

/// Where the broker is.
#[derive(Debug, Args)]
pub struct Server {
    /// Address of a broker.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
    pub server: String,
}

/// `corelog topic`
#[derive(Debug, Subcommand)]
pub enum Topic {
    /// Make a topic.
    Create {
        /// Its name: letters, digits, `.`, `_`, `-`.
        name: String,
        /// How many partitions it has.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        partitions: u32,
        /// When its records are acknowledged.
        #[arg(long, value_enum, default_value_t = Durability::Durable)]
        durability: Durability,
        /// Records may go that the broker took longer ago, by its own clock; without it they stay.
        #[arg(long, value_name = "D", value_parser = duration)]
        retention: Option<Duration>,
        /// Of each partition so many bytes stay, and older records may go; without it they stay.
        #[arg(long, value_name = "N", value_parser = bytes)]
        retention_bytes: Option<u64>,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
    /// Name every topic.
    List {
        #[command(flatten)]
        /// Where.
        server: Server,
    },
    /// Show the partitions of a topic: where they are served, first and next offset.
    Describe {
        /// Its name.
        name: String,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
    /// Add partitions to a topic, or change when its records are acknowledged or for how long they are kept.
    ///
    /// The topic is in use meanwhile. Keys are spread over its partitions by their number: with more of them, most keys go to
    /// another one from then on.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Alter {
        /// Its name.
        name: String,
        /// How many partitions it is to have: as many as it has, or more.
        #[arg(long, group = "change", value_parser = clap::value_parser!(u32).range(1..))]
        partitions: Option<u32>,
        /// When its records are acknowledged from then on.
        #[arg(long, value_enum, group = "change")]
        durability: Option<Durability>,
        /// Records may go that the broker took longer ago, by its own clock; `none`: not for their age.
        #[arg(long, value_name = "D|none", group = "change", value_parser = duration_or_none)]
        retention: Option<Duration>,
        /// Of each partition so many bytes stay, and older records may go; `none`: not for their number.
        #[arg(long, value_name = "N|none", group = "change", value_parser = bytes_or_none)]
        retention_bytes: Option<u64>,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
    /// Remove a topic with its records.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
}

/// When a record is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// It is on stable storage.
    Durable,
    /// It is written but perhaps not flushed; may fall back after a crash.
    Written,
    /// It is in memory; may fall back after a crash.
    Memory,
}

impl From<Begin> for corelog_client::Position {
    fn from(begin: Begin) -> Self {
        match begin {
            Begin::Start => Self::Start,
            Begin::End => Self::End,
            Begin::Offset(offset) => Self::Offset(offset),
            Begin::Time(microseconds) => Self::Time(microseconds),
        }
    }
}

impl From<Durability> for corelog_client::Durability {
    fn from(level: Durability) -> Self {
        match level {
            Durability::Durable => Self::Durable,
            Durability::Written => Self::Written,
            Durability::Memory => Self::Memory,
        }
    }
}

/// Compression of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// None.
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
}

impl From<Codec> for corelog_client::Codec {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

/// `corelog produce`
#[derive(Debug, Args)]
pub struct Produce {
    /// The topic.
    pub topic: String,
    /// The partition; without it by key, or without a key each batch to one chosen at random.
    #[arg(long)]
    pub partition: Option<u32>,
    /// The file, plain or compressed by gzip or zstd; standard input without it.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Lines are JSON objects; this field is the key.
    #[arg(long, value_name = "JSONFIELD", conflicts_with = "key_separator")]
    pub key_field: Option<String>,
    /// What stands between key and value of a line.
    #[arg(long, value_name = "S", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key_separator: Option<String>,
    /// A header for every record; may be repeated.
    #[arg(long = "header", value_name = "K=V", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// Compression of batches.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub codec: Codec,
    /// Size of a batch, from 1 KiB to what the broker takes; without it 128 KiB, or less if the broker takes less.
    #[arg(long, value_name = "N", value_parser = bytes)]
    pub batch_bytes: Option<u64>,
    /// Wait this many microseconds for a batch to fill, in steps of the timer's millisecond; without it a batch is sent as
    /// soon as the broker is free.
    #[arg(long, value_name = "US")]
    pub linger: Option<u64>,
    /// Give up a record that is not acknowledged within this time.
    #[arg(long, value_name = "D", default_value = "120s", value_parser = duration)]
    pub deadline: Duration,
    #[command(flatten)]
    /// Where.
    pub server: Server,
}

/// `corelog consume`
#[derive(Debug, Args)]
pub struct Consume {
    /// The topic.
    pub topic: String,
    /// The partition; all without it.
    #[arg(long)]
    pub partition: Option<u32>,
    /// Where to begin: `start`, `end`, an offset, or `@` and seconds since 1970: the first record not before that time.
    /// A partition that does not reach the offset yet has nothing to give until it does; named by `--partition`, it is
    /// refused.
    #[arg(long, value_name = "start|end|OFFSET|@TIMESTAMP", default_value = "start", value_parser = position)]
    pub from: Begin,
    /// Go on after the last record that was printed under this name. What is printed is committed under it, after it was
    /// written to standard output; --from is for partitions without a position.
    #[arg(long = "as", value_name = "NAME", value_parser = name)]
    pub name: Option<String>,
    /// End after this many records.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End where the topic ends now; without it, follow until interrupted.
    #[arg(long)]
    pub until_end: bool,
    /// Print the key and a tab before the value.
    #[arg(long)]
    pub with_key: bool,
    /// Print partition, offset and tabs before the value.
    #[arg(long)]
    pub with_offset: bool,
    /// Print the headers as `k=v,k=v` and a tab before the value.
    #[arg(long)]
    pub with_headers: bool,
    #[command(flatten)]
    /// Where.
    pub server: Server,
}

/// `corelog records`
#[derive(Debug, Subcommand)]
pub enum Records {
    /// Delete the oldest records of a partition: those before an offset. There is no way back.
    ///
    /// Whoever stands there is told that the offset is out of range, and where the partition starts.
    Delete {
        /// The topic and the number of its partition.
        #[arg(value_name = "TOPIC/PARTITION", value_parser = partition)]
        partition: (String, u32),
        /// The first record that stays: an offset, `end` (none stays), or `@` and seconds since 1970: the first record not
        /// before that time, or one that the broker keeps in a frame with it.
        #[arg(long, value_name = "OFFSET|end|@TIMESTAMP", value_parser = position)]
        before: Begin,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
}

/// `corelog position`
#[derive(Debug, Subcommand)]
pub enum Position {
    /// Show positions and how much is still to be read.
    List {
        /// Of this name only.
        #[arg(long = "as", value_name = "NAME", value_parser = name)]
        name: Option<String>,
        /// Of this topic only.
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
    /// Show the positions of one name in one topic.
    Get {
        /// The name.
        #[arg(value_parser = name)]
        name: String,
        /// The topic.
        topic: String,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
    /// Set where a name goes on. Not while a consumer runs under it: its next commit counts.
    Reset {
        /// The name.
        #[arg(value_parser = name)]
        name: String,
        /// The topic.
        topic: String,
        /// `start`, `end`, an offset, or `@` and seconds since 1970: at or before the first record not before that time.
        #[arg(long, value_name = "start|end|OFFSET|@TIMESTAMP", value_parser = position)]
        to: Begin,
        /// The partition; all without it.
        #[arg(long)]
        partition: Option<u32>,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
    /// Forget the positions of a name.
    Delete {
        /// The name.
        #[arg(value_parser = name)]
        name: String,
        /// The topic; all without it.
        topic: Option<String>,
        #[command(flatten)]
        /// Where.
        server: Server,
    },
}

/// Where to begin to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The first record kept.
    Start,
    /// What comes from now on.
    End,
    /// This offset.
    Offset(u64),
    /// The first record not before this time, in microseconds since 1970.
    Time(u64),
}

/// `corelog bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// A broker that is there; without it one is started for the run, on a core of its own.
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// Records of each phase.
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub records: Option<u64>,
    /// Length of each phase.
    #[arg(long, value_name = "D", default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Records a second, as an open loop; `max`: saturation alone. Without it, saturation and then half of that.
    #[arg(long, value_name = "R/s|max", value_parser = rate)]
    pub rate: Option<Rate>,
    /// Size of a record.
    #[arg(long, value_name = "B", default_value = "1000", value_parser = bytes, conflicts_with = "payload_file")]
    pub record_size: u64,
    /// Send the lines of this file, each after 16 bytes that name its producer and its number.
    #[arg(long, value_name = "F")]
    pub payload_file: Option<PathBuf>,
    /// Producers, which take turns in the schedule; without it 4, or as many as there are connections if that is more.
    #[arg(long, value_name = "N")]
    pub producers: Option<u32>,
    /// Consumers; with 0 the records are verified after the window.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub consumers: u32,
    /// Connections to each shard that the producers share, or have several of; and as many, but no more than partitions,
    /// that the consumers do. Without it each producer and each consumer has its own. A broker that is there takes
    /// `limits.connections` of them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3000))]
    pub connections: Option<u32>,
    /// Partitions of the topic that is made for the run.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub partitions: u32,
    /// Size of a batch.
    #[arg(long, value_name = "B", default_value = "128KiB", value_parser = bytes)]
    pub batch_bytes: u64,
    /// Requests of one partition that may be unacknowledged.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub in_flight: u8,
    /// Compression of batches.
    #[arg(long, value_name = "C", value_enum, default_value_t = Codec::None)]
    pub codec: Codec,
    /// When records are acknowledged.
    #[arg(long, value_name = "L", value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,
    /// How the broker's idle core waits.
    #[arg(long, value_name = "M", value_enum, conflicts_with = "server")]
    pub mode: Option<Mode>,
    /// Shards of the broker.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), conflicts_with = "server")]
    pub shards: u16,
    /// Cores for them, as `server.cpus`; without it those that the load leaves, or all if that is too few.
    #[arg(long, value_name = "CPUS", value_parser = cpus, conflicts_with = "server")]
    pub cpus: Option<Cpus>,
    /// Cores for the load's one thread, as `--cpus`; without it the first one that the broker leaves, or the
    /// first of all if it leaves none.
    #[arg(long, value_name = "CPUS", value_parser = cpus)]
    pub load_cpus: Option<Cpus>,
    /// Broker and load in two network namespaces, joined by a pair of veth devices, instead of the loopback device. Takes
    /// root and `ip`; nothing is left of them, however the run ends.
    #[arg(long, conflicts_with = "server")]
    pub netns: bool,
    /// No cap on the log: every byte goes to a place never written before.
    #[arg(long, conflicts_with = "server")]
    pub growing: bool,
    /// Where the report goes.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Any key of the configuration of the broker that is started.
    #[arg(long, value_name = "SECTION.KEY=VALUE", conflicts_with = "server")]
    pub set: Vec<String>,
    /// How long the disk's throughput is measured, before and after.
    #[arg(long, value_name = "D", default_value = "5s", value_parser = duration, conflicts_with = "server")]
    pub baseline: Duration,
    /// Do not measure the device before and after.
    #[arg(long)]
    pub no_baselines: bool,
    /// Seed of the content, to make the records of another run again; without it every run has its own.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// How fast records are offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as back-pressure allows.
    Max,
    /// So many a second.
    PerSecond(f64),
}

/// `corelog log`
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Print the frames and entries of every extent.
    Dump {
        /// The data directory, or one of its logs.
        dir: PathBuf,
    },
    /// Read everything and say what is damaged; changes nothing. Ends with 1 if anything is.
    Verify {
        /// The data directory, or one of its logs.
        dir: PathBuf,
        /// Only this log.
        #[arg(long, value_name = "N")]
        log: Option<u16>,
    },
    /// Note in the log that records which are damaged are given up: consumers pass them over from then on.
    Repair {
        /// The data directory.
        dir: PathBuf,
        /// Offsets that are damaged, the last one included; may be given several times. There is no way back.
        #[arg(long, value_name = "TOPIC/PARTITION:FIRST-LAST", required = true)]
        accept_loss: Vec<String>,
    },
}

fn name(text: &str) -> Result<String, String> {
    let fault = || "it takes 1 to 255 bytes of text without control characters".to_owned();
    is_position_name(text).then(|| text.to_owned()).ok_or_else(fault)
}

fn partition(text: &str) -> Result<(String, u32), String> {
    let fault = || "it takes TOPIC/PARTITION, such as orders/0".to_owned();
    let (topic, number) = text.rsplit_once('/').filter(|(topic, _)| !topic.is_empty()).ok_or_else(fault)?;
    Ok((topic.to_owned(), number.parse().map_err(|_| fault())?))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("it takes K=V")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A number with `KiB`, `MiB`, `GiB` or nothing behind it.
fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|found: char| !found.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err("it takes a number of bytes, such as 4096, 128KiB or 1MiB".to_owned()),
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "it takes a number of bytes, such as 4096, 128KiB or 1MiB".to_owned())
}

fn cpus(text: &str) -> Result<Cpus, String> {
    Cpus::parse(text).ok_or_else(|| {
        "it takes all, any, a number, a list such as 0-3,8 (one alone is 3-3), or numa:nodes=0;cores=4"
            .to_owned()
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|found: char| !found.is_ascii_digit() && found != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("it takes a time, such as 500ms, 30s, 5min or 7d".to_owned()),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * factor).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "it takes a time, such as 500ms, 30s, 5min or 7d".to_owned())
}

/// Zero stands for none.
fn duration_or_none(text: &str) -> Result<Duration, String> {
    if text == "none" { Ok(Duration::ZERO) } else { duration(text) }
}

/// Zero stands for none.
fn bytes_or_none(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { bytes(text) }
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .map(Rate::PerSecond)
        .ok_or_else(|| "it takes a number of records a second, or max".to_owned())
}

fn position(text: &str) -> Result<Begin, String> {
    let fault = || "it takes start, end, an offset, or @ and seconds since 1970".to_owned();
    match text {
        "start" => return Ok(Begin::Start),
        "end" => return Ok(Begin::End),
        _ => {}
    }
    if let Some(seconds) = text.strip_prefix('@') {
        let seconds: f64 = seconds.parse().map_err(|_| fault())?;
        let time = Duration::try_from_secs_f64(seconds).map_err(|_| fault())?;
        // To the nearest: microseconds of today are not exact as a fraction in binary.
        let microseconds = (time.as_nanos() + 500) / 1_000;
        return u64::try_from(microseconds).map(Begin::Time).map_err(|_| fault());
    }
    text.parse().map(Begin::Offset).map_err(|_| fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn values_with_units_are_read_and_others_refused() {
        assert_eq!(bytes("128KiB"), Ok(131_072));
        assert_eq!(bytes("1000"), Ok(1_000));
        for bad in ["", "0", "KiB", "1.5MiB", "99999999999GiB", "12 parsecs"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("2min"), Ok(Duration::from_secs(120)));
        for bad in ["", "0s", "s", "-1s", "3 fortnights"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(rate("max"), Ok(Rate::Max));
        assert_eq!(rate("2000/s"), Ok(Rate::PerSecond(2_000.0)));
        for bad in ["0", "-5", "inf", "fast"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(position("@1.5"), Ok(Begin::Time(1_500_000)));
        for us in [1_700_000_000_123_455, 1_700_000_000_123_456, 1_700_000_000_123_457] {
            let seconds = format!("@1700000000.{}", us % 1_000_000);
            assert_eq!(position(&seconds), Ok(Begin::Time(us)));
        }
        assert_eq!(position("17"), Ok(Begin::Offset(17)));
        for bad in ["", "-1", "@", "@yesterday", "@1e300", "middle"] {
            assert!(position(bad).is_err(), "{bad}");
        }
        assert_eq!(cpus("0-1,3"), Ok(Cpus::These(vec![0, 1, 3])));
        assert_eq!((cpus("any"), cpus("2")), (Ok(Cpus::Any), Ok(Cpus::Count(2))));
        for bad in ["", "0", "1-", "core 1", "numa"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(header("=b").is_err() && header("a").is_err());
        assert_eq!(name("billing, größe"), Ok("billing, größe".to_owned()));
        assert!(name("").is_err() && name("a\nb").is_err() && name(&"x".repeat(256)).is_err());
    }
}
