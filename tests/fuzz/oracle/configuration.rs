//! What must hold for anything an operator may write. Shared by the fuzz target and by the tests, which replay the
//! corpus without a fuzzer.

use corelog_server::Config;
use corelog_server::config::{
    ConfigError, DurableMethod, ENVIRONMENT_PREFIX, Mode, Origin, Ports, Preparation, ProbeMode,
};
use corelog_server::placement::Shards;

const FILE: &str = "corelog.toml";

/// `bytes` are a file; behind a line `---`, if there is one, variables (`CORELOG_SECTION_KEY=value`) and flags
/// (`section.key=value`), one a line. Returns whether they are a configuration.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (file, rest) = text.split_once("\n---\n").unwrap_or((text, ""));
    let is_variable = |line: &&str| line.starts_with(ENVIRONMENT_PREFIX) && line.contains('=');
    let (variables, flags): (Vec<_>, Vec<_>) = rest.lines().partition(is_variable);
    let variables: Vec<(String, String)> = variables
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
    match load(file, &variables, &flags) {
        Ok(config) => {
            within_bounds(&config);
            said_again(&config);
            true
        }
        Err(error) => {
            named(&error, text.len());
            false
        }
    }
}

/// As `Config::load`, but for the file, which is not one; and that must not matter when it is empty.
fn load(file: &str, variables: &[(String, String)], flags: &[String]) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    config.apply_toml(file, &Origin::File(FILE.into()))?;
    let result = variables
        .iter()
        .try_for_each(|(name, value)| config.apply_variable(name, value))
        .and_then(|()| flags.iter().try_for_each(|flag| config.apply_flag(flag)))
        .and_then(|()| config.check())
        .map(|()| config);
    if file.is_empty() {
        assert_eq!(Config::load(None, variables.iter().cloned(), flags), result);
    }
    result
}

/// What is refused is named, by a message that can be shown.
fn named(error: &ConfigError, bytes: usize) {
    let message = error.to_string();
    assert!(message.len() <= 6 * bytes + 1000, "{} bytes of message for {bytes}", message.len());
    let named = match error {
        ConfigError::Syntax { .. } => FILE,
        ConfigError::UnknownKey { key, .. } | ConfigError::BadValue { key, .. } => key,
        ConfigError::BadFlag { text } => text,
        ConfigError::Conflict { first, .. } => first,
        ConfigError::Unreadable { path, .. } => panic!("{} was never to be read", path.display()),
    };
    assert!(message.contains(named), "{message:?} does not name {named:?}");
}

/// Memory and files that follow from a configuration are bounded by it without overflow.
fn within_bounds(config: &Config) {
    let Config { server, log, memory, limits, .. } = config;
    assert!(server.spin_us <= 1_000_000);
    assert!((1..=7_000).contains(&limits.connections) && (1..=65_536).contains(&limits.requests));
    assert!((4 << 10..=16 << 20).contains(&limits.max_batch_bytes));
    assert!(limits.max_frame_bytes > limits.max_batch_bytes && limits.max_frame_bytes <= 33 << 20);
    assert!(memory.slow_bytes * u64::from(limits.connections) <= 1 << 40);
    assert!((1 << 20..=1 << 40).contains(&memory.reply_bytes) && memory.max_bytes <= 1 << 50);
    assert!(memory.ingest_bytes >= limits.max_frame_bytes && memory.cold_bytes >= limits.max_batch_bytes);
    assert!(log.extent_bytes.is_multiple_of(1 << 20) && log.extent_bytes >= 4 * log.frame_bytes);
    assert!(log.extent_bytes <= 1 << 32, "positions in an extent are 32 bits wide");
    assert!(log.window_bytes >= log.frame_bytes && log.frame_bytes.is_multiple_of(4096));
    assert!(log.retention_bytes.is_none_or(|bytes| bytes >= log.extent_bytes));
    assert!((1..=86_400).contains(&log.retention_check_s));
    assert!(log.frames_in_flight.is_none_or(|count| (1..=4).contains(&count)));
    assert!(u64::from(log.provision).checked_mul(log.extent_bytes).is_some());
    assert!(!log.data_dir.as_os_str().is_empty());
}

/// Whatever was accepted can be said by file, by variables and by flags, and means the same.
fn said_again(config: &Config) {
    let said = values(config);
    let mut file = String::new();
    let (mut variables, mut flags) = (Vec::new(), Vec::new());
    for (name, value) in &said {
        let (section, key) = name.split_once('.').expect("a section and a key");
        file.push_str(&format!("{section}.{key} = {}\n", quoted(value)));
        let variable = format!("{ENVIRONMENT_PREFIX}{section}_{key}").to_uppercase();
        variables.push((variable, value.clone()));
        flags.push(format!("{name}={value}"));
    }
    assert_eq!(load(&file, &[], &[]).as_ref(), Ok(config), "by file");
    assert_eq!(load("", &variables, &[]).as_ref(), Ok(config), "by variables");
    // Blanks around a flag's value are not of the value.
    if said.iter().all(|(_, value)| value.trim() == value) {
        assert_eq!(load("", &[], &flags).as_ref(), Ok(config), "by flags");
    }
}

fn quoted(value: &str) -> String {
    let plain = |c: char| !c.is_control() && c != '"' && c != '\\';
    let escaped = value.chars().map(|c| match plain(c) {
        true => c.to_string(),
        false => format!("\\U{:08X}", u32::from(c)),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn word<T>(value: Option<T>, in_words: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "auto".to_owned(), in_words)
}

/// Every key with its value.
fn values(config: &Config) -> Vec<(&'static str, String)> {
    let Config { server, log, memory, limits, probe } = config;
    let mode = match server.mode {
        Mode::Poll => "poll",
        Mode::Adaptive => "adaptive",
        Mode::Park => "park",
    };
    let ports = if server.ports == Ports::One { "one" } else { "each" };
    let shards = match server.shards {
        Shards::Auto => "auto".to_owned(),
        Shards::Count(count) => count.to_string(),
    };
    let method = |method| match method {
        DurableMethod::Dsync => "dsync".to_owned(),
        DurableMethod::Fdatasync => "fdatasync".to_owned(),
    };
    let preparation = |preparation| match preparation {
        Preparation::Unwritten => "unwritten".to_owned(),
        Preparation::Ahead => "ahead".to_owned(),
    };
    let probe = if *probe == ProbeMode::Off { "off" } else { "auto" };
    vec![
        ("server.listen", server.listen.to_string()),
        (
            "server.advertise",
            server
                .advertise
                .iter()
                .map(|(host, port)| format!("{host}:{port}"))
                .collect::<Vec<_>>()
                .join(","),
        ),
        ("server.http", server.http.map_or_else(String::new, |address| address.to_string())),
        ("server.mode", mode.to_owned()),
        ("server.spin_us", server.spin_us.to_string()),
        ("server.ports", ports.to_owned()),
        ("server.shards", shards),
        ("server.cpus", server.cpus.to_string()),
        ("log.data_dir", log.data_dir.to_str().expect("it was text").to_owned()),
        ("log.extent_bytes", log.extent_bytes.to_string()),
        ("log.window_bytes", log.window_bytes.to_string()),
        ("log.frame_bytes", log.frame_bytes.to_string()),
        ("log.retention_bytes", log.retention_bytes.unwrap_or(0).to_string()),
        ("log.retention_check_s", log.retention_check_s.to_string()),
        ("log.provision", log.provision.to_string()),
        ("log.zero_ahead_bytes", log.zero_ahead_bytes.to_string()),
        ("log.checkpoint_bytes", log.checkpoint_bytes.to_string()),
        ("log.settle_extents", log.settle_extents.to_string()),
        ("log.beacon_us", log.beacon_us.to_string()),
        ("log.buffered", log.buffered.to_string()),
        ("log.finalise", log.finalise.to_string()),
        ("log.durable_method", word(log.durable_method, method)),
        ("log.frames_in_flight", word(log.frames_in_flight, |count| count.to_string())),
        ("log.preparation", word(log.preparation, preparation)),
        ("memory.ingest_bytes", memory.ingest_bytes.to_string()),
        ("memory.cold_bytes", memory.cold_bytes.to_string()),
        ("memory.settle_bytes", memory.settle_bytes.to_string()),
        ("memory.slow_bytes", memory.slow_bytes.to_string()),
        ("memory.reply_bytes", memory.reply_bytes.to_string()),
        ("memory.max_bytes", memory.max_bytes.to_string()),
        ("limits.connections", limits.connections.to_string()),
        ("limits.requests", limits.requests.to_string()),
        ("limits.max_batch_bytes", limits.max_batch_bytes.to_string()),
        ("limits.max_frame_bytes", limits.max_frame_bytes.to_string()),
        ("limits.handshake_ms", limits.handshake_ms.to_string()),
        ("limits.idle_ms", limits.idle_ms.to_string()),
        ("limits.stalled_ms", limits.stalled_ms.to_string()),
        ("probe.mode", probe.to_owned()),
    ]
}
