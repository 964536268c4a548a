//! A consumer with a name: commits of how far its caller has come.

use std::task::Waker;

use corelog_wire::{ErrorCode, Response};

use super::cursor::Cursor;
use super::{Ask, Consumer, Token};
use crate::core::commits::{Reached, Ticket};
use crate::core::effects::Effects;
use crate::error::{CommitError, Refused};

impl Consumer {
    /// Asks for a commit of all that was taken; the ticket to wait for.
    pub(crate) fn commit(&mut self) -> Result<Ticket, CommitError> {
        if self.config.name.is_none() {
            return Err(CommitError::NotNamed);
        }
        self.last_ticket += 1;
        // An offset that was found for a time is not yet that of the record that was asked for.
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.since_us == 0) {
            if let Some(offset) = cursor.position {
                cursor.commits.want(Reached { offset, epoch: cursor.position_epoch }, self.last_ticket);
                self.links[cursor.link].kick = true;
            }
        }
        Ok(self.last_ticket)
    }

    /// Asks for a commit of what lies before `offset`.
    pub(crate) fn commit_to(&mut self, partition: u32, offset: u64) -> Result<(), CommitError> {
        if self.config.name.is_none() {
            return Err(CommitError::NotNamed);
        }
        let at = *self.by_partition.get(&partition).ok_or(CommitError::UnknownPartition)?;
        let cursor = &mut self.cursors[at];
        if let Some(refused) = cursor.commits.take_refused() {
            return Err(CommitError::Refused { partition, refused });
        }
        if cursor.position.is_none_or(|given| given < offset) {
            return Err(CommitError::NotGiven { partition, offset });
        }
        self.last_ticket += 1;
        cursor.commits.want(Reached { offset, epoch: cursor.position_epoch }, self.last_ticket);
        self.links[cursor.link].kick = true;
        Ok(())
    }

    /// The last commit asked for.
    pub(crate) const fn last_ticket(&self) -> Ticket {
        self.last_ticket
    }

    /// What became of the commits up to this ticket; `None` while one is not answered: `waker` is woken later.
    pub(crate) fn committed(&mut self, ticket: Ticket, waker: &Waker) -> Option<Result<(), CommitError>> {
        for cursor in &mut self.cursors {
            if let Some(refused) = cursor.commits.take_refused() {
                return Some(Err(CommitError::Refused { partition: cursor.partition, refused }));
            }
        }
        if !self.cursors.iter().any(|cursor| cursor.commits.is_outstanding(ticket)) {
            return Some(Ok(()));
        }
        if self.closed {
            return Some(Err(CommitError::Closed));
        }
        self.committing = Some(waker.clone());
        None
    }

    /// Takes the answer to a commit; one of an earlier generation counts as well.
    pub(super) fn on_commit_answer(
        &mut self,
        at: usize,
        response: &Response<'_>,
        now_us: u64,
        effects: &mut Effects,
    ) {
        let cursor = &mut self.cursors[at];
        match response {
            Response::Error(body) if body.code == ErrorCode::UnknownHandle => {
                // What was subscribed to under it is asked for anew.
                cursor.opened = false;
                cursor.unsubscribe();
                cursor.commits.again();
            }
            Response::Error(body) if body.code.retryable() => {
                self.links[cursor.link].astray |= body.code == ErrorCode::NotHere;
                let retry_after_us = body.retry_after_us.into();
                cursor.commits.later(retry_after_us, now_us, self.backoff, &mut self.rng);
            }
            Response::Error(body) => cursor.commits.refused(&Refused::from(body)),
            _ => cursor.commits.acknowledged(),
        }
        self.links[cursor.link].kick |= cursor.commits.is_due(now_us);
        effects.wake.extend(self.committing.take());
    }
}

impl Cursor {
    /// The commit that is due, if there is a handle for it.
    pub(super) fn commit(&mut self, at: usize, now_us: u64) -> Option<Ask> {
        let reached = if self.opened { self.commits.send(now_us)? } else { return None };
        let token = Token { cursor: at, generation: self.generation, commits: true };
        Some(Ask::Commit { token, handle: self.handle, reached })
    }

    /// Whether a commit waits for the handle, whatever else is wanted of the partition.
    pub(super) const fn needs_handle(&self, now_us: u64) -> bool {
        !self.opened && self.commits.is_due(now_us)
    }
}
