//! Connections: on whose behalf they act, which partition each of their handles names, and which subscription it has.

use std::collections::BTreeMap;

use crate::authorise::Principal;
use crate::event::ConnId;
use crate::partition::PartitionId;
use crate::refusal::{Bounded, Refusal};
use crate::wait::WaitId;

/// The highest handle a client may choose.
pub const MAX_HANDLE: u32 = 65_535;

#[derive(Debug)]
struct Session {
    generation: u32,
    principal: Principal,
    /// By handle, less one. As long as the highest handle opened.
    handles: Vec<Option<PartitionId>>,
    /// By handle.
    subscriptions: BTreeMap<u32, WaitId>,
}

/// All connections of a shard, by slot.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: Vec<Option<Session>>,
    connected: u32,
    /// Sum of the handle tables' lengths: what the bound is about is their memory.
    handles: u32,
    max_handles: u32,
}

impl Sessions {
    pub(crate) fn new(connections: u32, max_handles: u32) -> Self {
        let slots = (0..connections).map(|_| None).collect();
        Self { slots, connected: 0, handles: 0, max_handles }
    }

    pub(crate) fn connected(&self) -> u32 {
        self.connected
    }

    pub(crate) fn handles(&self) -> u32 {
        self.handles
    }

    /// A slot beyond the bound is ignored: the connection's requests are then refused.
    pub(crate) fn connect(&mut self, conn: ConnId, principal: Principal) {
        self.disconnect_slot(conn.slot);
        if let Some(slot) = self.slots.get_mut(conn.slot as usize) {
            let (handles, subscriptions) = Default::default();
            let generation = conn.generation;
            *slot = Some(Session { generation, principal, handles, subscriptions });
            self.connected += 1;
        }
    }

    /// The connection that has this slot.
    pub(crate) fn occupant(&self, slot: u32) -> Option<ConnId> {
        let session = self.slots.get(slot as usize)?.as_ref()?;
        Some(ConnId { slot, generation: session.generation })
    }

    pub(crate) fn disconnect(&mut self, conn: ConnId) {
        if self.session(conn).is_ok() {
            self.disconnect_slot(conn.slot);
        }
    }

    fn disconnect_slot(&mut self, slot: u32) {
        if let Some(session) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.connected -= 1;
            self.handles -= table_length(&session);
        }
    }

    pub(crate) fn principal(&self, conn: ConnId) -> Result<Principal, Refusal> {
        self.session(conn).map(|session| session.principal)
    }

    /// Names a partition by a handle, in place of what the handle named before.
    pub(crate) fn open(&mut self, conn: ConnId, handle: u32, partition: PartitionId) -> Result<(), Refusal> {
        if !(1..=MAX_HANDLE).contains(&handle) {
            return Err(Refusal::UnknownHandle);
        }
        let (taken, max) = (self.handles, self.max_handles);
        let session = self.session_mut(conn).ok_or(Refusal::UnknownConnection)?;
        let more = handle.saturating_sub(table_length(session));
        if taken + more > max {
            return Err(Refusal::TooMany { what: Bounded::Handles, max });
        }
        if more > 0 {
            session.handles.resize(handle as usize, None);
        }
        session.handles[handle as usize - 1] = Some(partition);
        self.handles += more;
        Ok(())
    }

    /// The handle names nothing from now on.
    pub(crate) fn forget(&mut self, conn: ConnId, handle: u32) {
        let Some(session) = self.session_mut(conn) else { return };
        let at = (handle as usize).checked_sub(1);
        if let Some(named) = at.and_then(|at| session.handles.get_mut(at)) {
            *named = None;
        }
    }

    pub(crate) fn partition(&self, conn: ConnId, handle: u32) -> Result<PartitionId, Refusal> {
        let at = (handle as usize).checked_sub(1).ok_or(Refusal::UnknownHandle)?;
        self.session(conn)?.handles.get(at).copied().flatten().ok_or(Refusal::UnknownHandle)
    }

    /// The subscription of a handle.
    pub(crate) fn subscription(&self, conn: ConnId, handle: u32) -> Option<WaitId> {
        self.session(conn).ok()?.subscriptions.get(&handle).copied()
    }

    /// The handle has a subscription from now on.
    pub(crate) fn subscribe(&mut self, conn: ConnId, handle: u32, id: WaitId) {
        if let Some(session) = self.session_mut(conn) {
            let before = session.subscriptions.insert(handle, id);
            assert!(before.is_none(), "a handle has one subscription");
        }
    }

    /// The handle has none from now on; which one it had.
    pub(crate) fn unsubscribe(&mut self, conn: ConnId, handle: u32) -> Option<WaitId> {
        self.session_mut(conn)?.subscriptions.remove(&handle)
    }

    /// This subscription is over; the handle may have another one by now.
    pub(crate) fn forget_subscription(&mut self, conn: ConnId, handle: u32, id: WaitId) {
        if let Some(session) = self.session_mut(conn)
            && session.subscriptions.get(&handle) == Some(&id)
        {
            session.subscriptions.remove(&handle);
        }
    }

    fn session_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        let session = self.slots.get_mut(conn.slot as usize).and_then(Option::as_mut);
        session.filter(|session| session.generation == conn.generation)
    }

    fn session(&self, conn: ConnId) -> Result<&Session, Refusal> {
        let session = self.slots.get(conn.slot as usize).and_then(Option::as_ref);
        session.filter(|session| session.generation == conn.generation).ok_or(Refusal::UnknownConnection)
    }

    /// The counts are those of the tables.
    pub(crate) fn check(&self) {
        let sessions = self.slots.iter().flatten();
        assert_eq!(sessions.clone().count(), self.connected as usize);
        assert_eq!(sessions.map(table_length).sum::<u32>(), self.handles);
        assert!(self.handles <= self.max_handles);
    }
}

fn table_length(session: &Session) -> u32 {
    u32::try_from(session.handles.len()).expect("handles are bounded")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId { slot: 0, generation: 1 };
    const P: PartitionId = PartitionId { slot: 7, generation: 0 };

    fn sessions() -> Sessions {
        let mut sessions = Sessions::new(2, 100);
        sessions.connect(A, Principal::Local);
        sessions
    }

    #[test]
    fn handles_belong_to_one_connection_and_end_with_it() {
        let mut sessions = sessions();
        sessions.open(A, 3, P).unwrap();
        assert_eq!(sessions.partition(A, 3), Ok(P));
        assert_eq!(sessions.partition(A, 2), Err(Refusal::UnknownHandle));
        let next = ConnId { slot: 0, generation: 2 };
        sessions.connect(next, Principal::Anonymous);
        assert_eq!(sessions.partition(next, 3), Err(Refusal::UnknownHandle));
        assert_eq!(sessions.partition(A, 3), Err(Refusal::UnknownConnection));
        sessions.disconnect(A);
        assert_eq!(sessions.connected(), 1, "the slot has a new owner");
        sessions.check();
    }

    #[test]
    fn the_memory_of_handles_is_bounded() {
        let mut sessions = sessions();
        assert_eq!(sessions.open(A, 0, P), Err(Refusal::UnknownHandle));
        assert_eq!(sessions.open(A, MAX_HANDLE + 1, P), Err(Refusal::UnknownHandle));
        sessions.open(A, 100, P).unwrap();
        assert!(matches!(sessions.open(A, 101, P), Err(Refusal::TooMany { .. })));
        let beyond = ConnId { slot: 2, generation: 0 };
        sessions.connect(beyond, Principal::Local);
        assert_eq!(sessions.principal(beyond), Err(Refusal::UnknownConnection));
        sessions.check();
    }
}
