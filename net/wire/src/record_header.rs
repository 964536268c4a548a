//! Names of record headers that have an agreed meaning. The broker does not look at them; clients, bridges and
//! gateways do. Applications may read and set them, and must not use names with [`PREFIX`] for anything else.
//!
//! Values are text, so that clients of other protocols can read and write them.

/// Names that start so belong to corelog.
pub const PREFIX: &str = "corelog-";
/// Where the answer to this record is to be produced: the name of a topic, optionally `/` and a partition.
pub const REPLY_TO: &str = "corelog-reply-to";
/// Ties an answer to its question: copied unchanged, at most 64 bytes, from the one to the other.
pub const CORRELATION: &str = "corelog-correlation";
/// After this instant nobody waits for the answer: microseconds since 1970 (UTC), decimal.
pub const DEADLINE: &str = "corelog-deadline";
/// W3C Trace Context, `traceparent`: version, trace id, parent id and flags, as in the HTTP header.
pub const TRACE_PARENT: &str = "traceparent";
/// W3C Trace Context, `tracestate`: vendors' own part of the trace.
pub const TRACE_STATE: &str = "tracestate";

/// All names with an agreed meaning.
pub const ALL: [&str; 5] = [REPLY_TO, CORRELATION, DEADLINE, TRACE_PARENT, TRACE_STATE];
