//! Who may do what. Every request passes here once, on its resolved resource, and nowhere else.

use corelog_model::TopicId;

use crate::refusal::Refusal;

/// On whose behalf a connection acts. The server decides it once per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A peer on the loopback device of the same machine.
    Local,
    /// Any other peer that has proved nothing.
    Anonymous,
}

/// What a request does to its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// See that it exists, and its counters.
    Describe,
    /// Append records.
    Produce,
    /// Read records and offsets, keep positions.
    Consume,
    /// Create, alter or delete it, or delete records of it.
    Alter,
}

/// What a request is about, after names and handles are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The broker as a whole.
    Broker,
    /// One topic.
    Topic(TopicId),
}

/// What anonymous peers may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// All that a local peer may.
    #[default]
    Everything,
    /// All but create, alter and delete topics, and delete records.
    Records,
    /// Nothing.
    Nothing,
}

/// Whether `principal` may do `operation` on `resource`, given what `anonymous` peers may.
pub(crate) fn authorise(
    anonymous: Access,
    principal: Principal,
    operation: Operation,
    resource: Resource,
) -> Result<(), Refusal> {
    let allowed = match (principal, anonymous) {
        (Principal::Local, _) | (_, Access::Everything) => true,
        (_, Access::Nothing) => false,
        (_, Access::Records) => match resource {
            Resource::Broker => operation == Operation::Describe,
            Resource::Topic(_) => operation != Operation::Alter,
        },
    };
    if allowed { Ok(()) } else { Err(Refusal::NotAuthorised) }
}
