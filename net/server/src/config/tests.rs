//! What an operator may write, and what stops the start.

use super::*;

fn with_flags(flags: &[&str]) -> Result<Config, ConfigError> {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Config::load(None, [], &flags)
}

#[test]
fn the_embedded_default_sets_every_key_it_can() {
    let config = with_flags(&[]).expect("the default is good");
    assert_eq!(config.server.listen.port(), 9600);
    let http = config.server.http.expect("it is on");
    assert!(http.port() == 9680 && http.ip().is_loopback(), "and nobody's but this machine's: {http}");
    assert_eq!(config.log.extent_bytes, 256 << 20);
    assert_eq!(config.limits.max_batch_bytes, corelog_model::limits::MAX_BATCH_BYTES_DEFAULT as u64);
    assert_eq!(config.log.retention_bytes, None);
    assert_eq!(config.probe, ProbeMode::Auto);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("corelog.toml");
    std::fs::write(&path, "[server]\nmode = \"park\"\nspin_us = 1\n[log]\nbuffered = true\n")
        .expect("written");
    let variables = [
        ("CORELOG_SERVER_SPIN_US".to_owned(), "2".to_owned()),
        ("CORELOG_LOG_DATA_DIR".to_owned(), "/somewhere".to_owned()),
        ("PATH".to_owned(), "/bin".to_owned()),
    ];
    let config = Config::load(Some(&path), variables, &["log.data_dir=/elsewhere".to_owned()]).expect("good");
    assert_eq!(config.server.mode, Mode::Park);
    assert_eq!(config.server.spin_us, 2);
    assert!(config.log.buffered);
    assert_eq!(config.log.data_dir, PathBuf::from("/elsewhere"));
}

#[test]
fn whatever_is_not_understood_stops_the_start_and_is_named() {
    // A flag, and what the message must name.
    let rows: [(&str, &[&str]); 18] = [
        ("server.color=blue", &["server.color", "does not exist"]),
        ("colour.server=blue", &["colour.server", "does not exist"]),
        ("probe.depth=4", &["probe.depth", "does not exist"]),
        ("server.mode=fast", &["server.mode", "`fast`", "poll, adaptive or park"]),
        ("server.listen=9600", &["server.listen", "`9600`", "127.0.0.1:9600"]),
        ("server.advertise=example.org", &["server.advertise", "HOST:PORT"]),
        ("server.http=9680", &["server.http", "`9680`", "127.0.0.1:9680, or nothing"]),
        ("server.cpus=-1", &["server.cpus", "`-1`", "0-3,8"]),
        ("log.extent_bytes=1.5 GiB", &["log.extent_bytes", "`1.5 GiB`"]),
        ("log.extent_bytes=1000001", &["log.extent_bytes", "whole MiB"]),
        ("log.window_bytes=17 TB", &["log.window_bytes", "`17 TB`"]),
        ("log.window_bytes=99999999999 TiB", &["log.window_bytes", "bytes"]),
        ("log.frames_in_flight=5", &["log.frames_in_flight", "1 to 4"]),
        ("log.buffered=yes", &["log.buffered", "true or false"]),
        ("limits.connections=0", &["limits.connections", "1 to 7000"]),
        ("limits.max_batch_bytes=17 MiB", &["limits.max_batch_bytes", "4 KiB to 16 MiB"]),
        ("limits.max_batch_bytes=1000001", &["limits.max_batch_bytes", "16 bytes"]),
        ("nonsense", &["nonsense", "section.key=value"]),
    ];
    for (flag, parts) in rows {
        let message = with_flags(&[flag]).expect_err(flag).to_string();
        for part in parts {
            assert!(message.contains(part), "{flag}: {message:?} does not name {part:?}");
        }
    }
}

#[test]
fn an_unknown_variable_and_an_unknown_section_are_named() {
    let variable = [("CORELOG_SERVER_COLOR".to_owned(), "1".to_owned())];
    let message = Config::load(None, variable, &[]).expect_err("unknown").to_string();
    assert!(message.contains("CORELOG_SERVER_COLOR") && message.contains("server.color"), "{message}");

    let mut config = Config::default();
    for text in ["[colours]\n", "depth = 3\n", "[server]\ncolor = 1\n"] {
        let error = config.apply_toml(text, &Origin::File("c.toml".into())).expect_err(text);
        assert!(matches!(error, ConfigError::UnknownKey { .. }), "{text}: {error}");
        assert!(error.to_string().contains("c.toml"));
    }
    let error = config.apply_toml("[server\n", &Origin::File("c.toml".into())).expect_err("not TOML");
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn http_is_switched_off_by_nothing() {
    assert_eq!(with_flags(&["server.http="]).expect("good").server.http, None);
    let any = with_flags(&["server.http=[::1]:0"]).expect("good").server.http.expect("an address");
    assert_eq!(any.to_string(), "[::1]:0");
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    let message = with_flags(&["limits.max_batch_bytes=16 MiB"]).expect_err("too small a pool").to_string();
    assert!(message.contains("limits.max_batch_bytes"), "{message}");
    let message = with_flags(&["log.retention_bytes=256 MiB"]).expect_err("one extent").to_string();
    assert!(message.contains("log.retention_bytes") && message.contains("log.extent_bytes"), "{message}");
}

#[test]
fn sizes_take_units() {
    let config =
        with_flags(&["log.window_bytes=1 GiB", "log.extent_bytes=67_108_864", "memory.slow_bytes=0"])
            .expect("good");
    assert_eq!(
        (config.log.window_bytes, config.log.extent_bytes, config.memory.slow_bytes),
        (1 << 30, 64 << 20, 0)
    );
}
