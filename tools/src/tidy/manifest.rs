//! Who may depend on whom: the direction of the crates, read from their manifests.

use std::path::Path;

use super::Finding;

/// A crate, and the crates of ours that it may name under `[dependencies]`. Those not listed are at the top (the
/// binary, tests, perf) and may name all.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("corelog-model", &[]),
    ("corelog-storage", &["corelog-model"]),
    ("corelog-shard", &["corelog-model", "corelog-storage"]),
    ("corelog-uring", &["corelog-model"]),
    ("corelog-wire", &["corelog-model"]),
    (
        "corelog-server",
        &["corelog-model", "corelog-storage", "corelog-shard", "corelog-uring", "corelog-wire"],
    ),
    ("corelog-client", &["corelog-model", "corelog-wire"]),
    ("corelog-testing", &["corelog-model", "corelog-server"]),
    ("corelog-load", &["corelog-client", "corelog-model", "corelog-uring"]),
];

/// The folders whose crates have no cargo features: what they do does not depend on how they were built.
const NO_FEATURES: [&str; 2] = ["engine", "net"];

/// Checks one manifest. `path` is relative to the root.
pub(super) fn check(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    let mut section = "";
    let mut name = "";
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.starts_with('[') {
            section = line;
            if line == "[features]" && NO_FEATURES.iter().any(|folder| path.starts_with(folder)) {
                findings.push(Finding::new(path, number, "crates of engine and net have no features"));
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let key = key.trim().split('.').next().unwrap_or_default();
        match section {
            "[package]" if key == "name" => name = value.trim().trim_matches('"'),
            "[dependencies]" | "[build-dependencies]" if key.starts_with("corelog-") => {
                if let Some((_, allowed)) = ALLOWED.iter().find(|(of, _)| *of == name)
                    && !allowed.contains(&key)
                {
                    findings.push(Finding::new(path, number, format!("{name} must not depend on {key}")));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(Path::new(path), text, &mut findings);
        findings.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn storage_must_not_see_the_ring_but_its_tests_may_use_anything() {
        let text = "[package]\nname = \"corelog-storage\"\n[dependencies]\ncorelog-model.workspace = true\n\
                    corelog-uring = { path = \"../uring\" }\n[dev-dependencies]\ncorelog-server.workspace = true\n";
        assert_eq!(
            faults("engine/storage/Cargo.toml", text),
            ["corelog-storage must not depend on corelog-uring"]
        );
    }

    #[test]
    fn the_top_may_name_all_and_features_are_refused_below() {
        let text =
            "[package]\nname = \"corelog\"\n[dependencies]\ncorelog-shard.workspace = true\n[features]\n";
        assert_eq!(faults("tools/Cargo.toml", text), Vec::<String>::new());
        assert_eq!(faults("net/wire/Cargo.toml", "[features]\n").len(), 1);
    }
}
