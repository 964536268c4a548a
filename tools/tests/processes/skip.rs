//! Tests that need root: what they say where they are not run.

use std::io::Write as _;
use std::{env, io};

/// Says past the test's captured output that a test is skipped. With TEST_AS_ROOT=1, as `.ci/run` sets it for
/// root, nothing may be.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    let may_skip = env::var_os("TEST_AS_ROOT").is_none_or(|value| value != "1");
    assert!(may_skip, "TEST_AS_ROOT=1 and yet skipped: {why}");
    writeln!(io::stderr(), "skipped: {why}").expect("standard error is open");
}
