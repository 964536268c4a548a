//! `corelog log`.
use crate::cli::{Format, Log};
use crate::failure::Failure;

pub(super) fn run(_arguments: &Log, _format: Format) -> Result<(), Failure> {
    Ok(())
}
