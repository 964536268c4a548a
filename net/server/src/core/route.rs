//! Which log a request is for: the one its handle was opened on, log 0 for what changes topics, any for the rest.
//!
//! **Invariant:** what all connections together have noted of their handles stays below a bound.

use corelog_model::LogId;
use corelog_shard::{Bounded, MAX_HANDLE, Refusal, Request};

use super::Core;

/// Handles noted by all connections of a core together, counted by the highest one of each.
const MAX_ROUTES: u32 = 1 << 20;

/// Where the handles of one connection lead, by handle, less one.
#[derive(Debug, Default)]
pub(crate) struct Routes(Vec<Option<LogId>>);

impl Routes {
    /// Where a handle leads.
    pub(super) fn get(&self, handle: u32) -> Option<LogId> {
        let at = (handle as usize).checked_sub(1)?;
        self.0.get(at).copied().flatten()
    }

    /// How many are counted for this connection.
    pub(crate) fn len(&self) -> u32 {
        self.0.len() as u32
    }
}

impl Core {
    /// The log that answers a request. A handle leads where it was last asked to; a shard that refuses an Open forgets
    /// what the handle named there.
    pub(super) fn route(&mut self, slot: u32, request: &Request<'_>) -> Result<LogId, Refusal> {
        let here = self.logs.here();
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        Ok(match *request {
            Request::Open { handle, topic, partition } => {
                let at = (handle as usize).checked_sub(1).filter(|_| handle <= MAX_HANDLE);
                let routes = &mut connection.routes.0;
                match (self.logs.home(topic, partition), at) {
                    (Some(log), Some(at)) => {
                        let more = handle.saturating_sub(routes.len() as u32);
                        if self.routes + more > MAX_ROUTES {
                            return Err(Refusal::TooMany { what: Bounded::Handles, max: MAX_ROUTES });
                        }
                        if more > 0 {
                            self.routes += more;
                            routes.resize(handle as usize, None);
                        }
                        routes[at] = Some(log);
                        log
                    }
                    (home, at) => {
                        // It will be refused, and the handle names nothing then.
                        if let Some(route) = at.and_then(|at| routes.get_mut(at)) {
                            *route = None;
                        }
                        home.unwrap_or(here)
                    }
                }
            }
            Request::Produce { handle, .. }
            | Request::Fetch { handle, .. }
            | Request::Subscribe { handle, .. }
            | Request::Credit { handle, .. }
            | Request::OffsetForTime { handle, .. }
            | Request::CommitPosition { handle, .. }
            | Request::DeletePosition { handle, .. }
            | Request::DeleteRecords { handle, .. }
            | Request::ReadPositions { handle, .. } => connection.routes.get(handle).unwrap_or(here),
            Request::CreateTopic { .. }
            | Request::AlterTopic { .. }
            | Request::DeleteTopic { .. }
            | Request::ProducerId => LogId(0),
            Request::Metadata { .. } | Request::Status => here,
        })
    }
}
