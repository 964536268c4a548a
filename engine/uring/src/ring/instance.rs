//! One io_uring, its three handles kept for its whole life, and the calls that set it up.
//!
//! The handles of the `io-uring` crate borrow the ring, and the index of the registered ring descriptor lives in
//! the `Submitter`, so a fresh handle per turn would lose it. The ring is therefore boxed and the handles live
//! beside the box, declared before it so that they are dropped first.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, squeue};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::RingConfig;
use super::error::{RingError, RingOperation};
use crate::op::Errno;
use crate::waker::Eventfd;

pub(super) struct Instance {
    submitter: Submitter<'static>,
    sq: SubmissionQueue<'static>,
    cq: CompletionQueue<'static>,
    /// Waiting enters must not count as waiting for a disk, where the kernel knows the flag.
    wait_flags: EnterFlags,
    fd: RawFd,
    _owner: Owner,
}

/// Owns the boxed ring that the handles point into.
struct Owner(*mut IoUring);

impl Drop for Owner {
    #[expect(unsafe_code, reason = "frees the boxed ring")]
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw`, is freed only here, and `Instance` declares the handles
        // before its owner, so they are gone.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

impl Instance {
    /// A ring with room for `operations` in both queues, its descriptor registered.
    pub(super) fn new(operations: u32) -> Result<Self, RingError> {
        let ring = build(operations).map_err(|error| RingError::new(RingOperation::Setup, error))?;
        let mut wait_flags = EnterFlags::GETEVENTS;
        if ring.params().is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        let fd = ring.as_raw_fd();
        let owner = Owner(Box::into_raw(Box::new(ring)));
        let (mut submitter, sq, cq) = handles(&owner);
        submitter.register_ring_fd().map_err(|error| RingError::new(RingOperation::RegisterRing, error))?;
        Ok(Self { submitter, sq, cq, wait_flags, fd, _owner: owner })
    }

    /// The ring's descriptor once more.
    #[expect(unsafe_code, reason = "the io-uring crate lends the number only")]
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring is open as long as its owner is here.
        unsafe { BorrowedFd::borrow_raw(self.fd) }.try_clone_to_owned()
    }

    /// Registers the empty table of files and the signal, which stays silent until armed.
    pub(super) fn register(&mut self, config: &RingConfig, signal: &Eventfd) -> Result<(), RingError> {
        let places = config.sockets + config.files;
        let table = RingOperation::RegisterTable { places };
        allow_open_files(u64::from(places)).map_err(|errno| RingError::new(table, errno))?;
        self.submitter.register_files_sparse(places).map_err(|error| RingError::new(table, error))?;
        self.cq.disable_eventfd();
        self.submitter
            .register_eventfd(signal.as_fd().as_raw_fd())
            .map_err(|error| RingError::new(RingOperation::Eventfd, error))
    }

    /// Makes room for `regions` registered buffers.
    pub(super) fn reserve_buffers(&self, regions: u32) -> io::Result<()> {
        self.submitter.register_buffers_sparse(regions)
    }

    /// Registers `bytes` at `address` as buffer number `index`.
    #[expect(unsafe_code, reason = "gives the kernel memory to pin")]
    pub(super) fn register_buffer(&self, index: u32, region: &crate::arena::Region) -> io::Result<()> {
        let address = std::ptr::with_exposed_provenance_mut(region.address());
        let memory = [libc::iovec { iov_base: address, iov_len: region.bytes() }];
        // SAFETY: the ring keeps the region's mapping, and the kernel its pages, until the ring is gone.
        unsafe { self.submitter.register_buffers_update(index, &memory, None) }
    }

    /// Puts a file in the table. The table holds its own reference.
    pub(super) fn register_file(&self, place: u32, fd: BorrowedFd<'_>) -> Result<(), RingError> {
        self.update_file(place, fd.as_raw_fd())
    }

    /// Empties a place of the table. Operations in flight keep the file open until they complete.
    pub(super) fn release_file(&self, place: u32) -> Result<(), RingError> {
        self.update_file(place, -1)
    }

    fn update_file(&self, place: u32, fd: RawFd) -> Result<(), RingError> {
        match self.submitter.register_files_update(place, &[fd]) {
            Ok(_) => Ok(()),
            Err(error) => Err(RingError::new(RingOperation::RegisterFile, error)),
        }
    }

    /// Queues one entry.
    ///
    /// # Safety
    /// Everything the entry points at stays valid, and what the kernel writes to stays unused by others, until
    /// its completion was taken.
    #[expect(unsafe_code, reason = "the caller vouches for what the entry points at")]
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.sq.push(entry) };
        assert!(pushed.is_ok(), "the submission queue has room for every slot");
    }

    /// Makes queued entries visible to the kernel; returns how many it has not taken yet.
    pub(super) fn queued(&mut self) -> u32 {
        self.sq.sync();
        u32::try_from(self.sq.len()).expect("a queue has at most 32768 entries")
    }

    /// Whether the kernel holds completions back until the next enter.
    pub(super) fn has_deferred(&self) -> bool {
        self.sq.taskrun() || self.sq.cq_overflow()
    }

    /// Submits `queued` entries and runs the kernel's deferred work, without waiting.
    pub(super) fn enter(&mut self, queued: u32) -> io::Result<()> {
        self.enter_with(queued, 0, EnterFlags::GETEVENTS, None)
    }

    /// Submits `queued` entries and waits for `want` completions, or for the time.
    pub(super) fn wait(&mut self, queued: u32, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        match timeout {
            None => self.enter_with(queued, want, self.wait_flags, None),
            Some(timeout) => {
                let time = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&time);
                self.enter_with(queued, want, self.wait_flags | EnterFlags::EXT_ARG, Some(&args))
            }
        }
    }

    /// A full queue of completions, a signal and the end of the time are no errors: the caller comes again.
    #[expect(unsafe_code, reason = "the crate's safe calls cannot pass NO_IOWAIT")]
    fn enter_with(
        &mut self,
        queued: u32,
        want: u32,
        flags: EnterFlags,
        args: Option<&SubmitArgs<'_, '_>>,
    ) -> io::Result<()> {
        // SAFETY: `args` is what EXT_ARG asks for and outlives the call; the flag is set exactly when it is there.
        let entered = unsafe { self.submitter.enter(queued, want, flags.bits(), args) };
        self.sq.sync();
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// The next completion: its user data and result.
    pub(super) fn next(&mut self) -> Option<(u64, i32)> {
        self.cq.next().map(|entry: cqueue::Entry| (entry.user_data(), entry.result()))
    }

    /// Sees what the kernel has completed, and gives it back the room of what was taken.
    pub(super) fn refresh(&mut self) {
        self.cq.sync();
    }

    pub(super) fn has_completions(&self) -> bool {
        !self.cq.is_empty()
    }

    pub(super) fn set_eventfd(&self, enabled: bool) {
        if enabled {
            self.cq.enable_eventfd();
        } else {
            self.cq.disable_eventfd();
        }
    }

    /// Asks the kernel to end everything in flight. What it cannot end goes on and completes by itself.
    pub(super) fn cancel_all(&self) {
        // Nothing to cancel and not ended in time are both answered by waiting for the completions.
        let _ = self.submitter.register_sync_cancel(Some(Timespec::new()), CancelBuilder::any());
    }

    /// Lets go of files and memory now: the kernel tears a closed ring down only later, and until then a
    /// listener's port would stay taken.
    pub(super) fn unregister(&mut self, buffers: bool) {
        // Refused only when there was nothing registered.
        let _ = self.submitter.unregister_files();
        if buffers {
            let _ = self.submitter.unregister_buffers();
        }
        // A thread has room for 16 registered rings, and keeps them open until it ends.
        let _ = self.submitter.unregister_ring_fd();
    }
}

#[expect(unsafe_code, reason = "the handles live as long as the boxed ring, which the compiler cannot see")]
fn handles(owner: &Owner) -> (Submitter<'static>, SubmissionQueue<'static>, CompletionQueue<'static>) {
    // SAFETY: the pointer came from `Box::into_raw`; this is the only reference ever made from it, and the caller
    // keeps the owner at least as long as the handles.
    unsafe { &mut *owner.0 }.split()
}

fn build(operations: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_no_sqarray()
        .setup_submit_all()
        .setup_cqsize(operations.next_power_of_two() * 2)
        .build(operations.next_power_of_two())
}

/// The table of files counts against the limit of open files; the soft limit is often 1,024.
fn allow_open_files(places: u64) -> Result<(), Errno> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= places) {
        return Ok(());
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(Errno::from)
}
