//! One submission becomes one entry of the kernel's queue.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use corelog_model::{Block, Slice};
use io_uring::types::{DestinationSlot, Fd, Fixed, FsyncFlags};
use io_uring::{opcode, squeue};

use super::operation::{Held, Message, Peer};
use super::regions::Memory;
use super::{KNOCK, Ring, WAKE};
use crate::op::{Completion, Errno, FileId, Key, ListenerId, SEND_SLICES, SocketId, Submission};

/// Sends fill the pipe by themselves after a short write and never raise SIGPIPE.
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// Where a send's bytes are.
struct Pieces<'a> {
    head: Option<Block>,
    head_offset: u32,
    head_length: u32,
    slices: &'a [Slice],
}

impl Ring {
    /// Queues the entry of a submission whose slot is vacant, or refuses it by a completion.
    pub(super) fn prepare(&mut self, submission: Submission, slices: &[Slice]) {
        match submission {
            Submission::Accept { key, listener } => self.accept(key, listener),
            Submission::Recv { key, socket, block, offset, length } => {
                self.receive(key, socket, block, offset, length);
            }
            Submission::Send { key, socket, head, head_offset, head_length, slices: range } => {
                let slices = &slices[range.start as usize..range.end as usize];
                self.send(key, socket, Pieces { head, head_offset, head_length, slices });
            }
            Submission::Write { key, file, position, source, flush } => {
                self.write(key, file, position, source, flush);
            }
            Submission::Sync { key, file } => {
                let entry = opcode::Fsync::new(Fixed(file.0)).flags(FsyncFlags::DATASYNC).build();
                self.queue(key, entry, Held::Plain);
            }
            Submission::Read { key, file, position, into, length } => {
                self.read(key, file, position, into, length);
            }
            Submission::Cancel { key, target } => {
                self.queue(key, opcode::AsyncCancel::new(target.0).build(), Held::Plain);
            }
            Submission::Shutdown { key, socket } => {
                let entry = opcode::Shutdown::new(Fixed(socket.0), libc::SHUT_RDWR).build();
                self.queue(key, entry, Held::Plain);
            }
            Submission::Close { key, socket } => {
                self.queue(key, opcode::Close::new(Fixed(socket.0)).build(), Held::Close { socket });
            }
        }
    }

    fn accept(&mut self, key: Key, listener: ListenerId) {
        let Some(socket) = self.tables.take_socket() else {
            let result = Err(Errno::TABLE_FULL);
            self.refused.push(Completion { key, result, block: None, accepted: None });
            return;
        };
        let mut peer = self.peers.pop().unwrap_or_else(Peer::new);
        let (address, length) = peer.prepare();
        let place = DestinationSlot::try_from_slot_target(socket.0).expect("a place of the table");
        let entry = opcode::Accept::new(Fixed(listener.0), address, length).file_index(Some(place)).build();
        self.queue(key, entry, Held::Accept { socket, peer });
    }

    fn receive(&mut self, key: Key, socket: SocketId, mut block: Block, offset: u32, length: u32) {
        let memory = part(&mut block, offset, length);
        let entry = opcode::Recv::new(Fixed(socket.0), memory.address, memory.bytes).build();
        self.queue(key, entry, Held::Block(block));
    }

    fn send(&mut self, key: Key, socket: SocketId, pieces: Pieces<'_>) {
        let Pieces { mut head, head_offset, head_length, slices } = pieces;
        assert!(slices.len() <= SEND_SLICES, "a send has at most {SEND_SLICES} slices");
        assert!(head.is_some() || head_length == 0, "the bytes of a head need a head");
        let first = head.as_mut().map(|block| part(block, head_offset, head_length));
        if let (Some(memory), []) = (first, slices) {
            let entry = opcode::Send::new(Fixed(socket.0), memory.address, memory.bytes).flags(SEND_FLAGS);
            let held = head.map_or(Held::Plain, Held::Block);
            self.queue(key, entry.build(), held);
            return;
        }
        let mut message = self.messages.pop().unwrap_or_else(Message::new);
        let rest = slices.iter().map(|&slice| self.regions.resolve(slice));
        let header = message.fill(first.into_iter().chain(rest));
        let entry = opcode::SendMsg::new(Fixed(socket.0), header).flags(SEND_FLAGS.cast_unsigned());
        self.queue(key, entry.build(), Held::Send { head, message });
    }

    fn write(&mut self, key: Key, file: FileId, position: u64, source: Slice, flush: bool) {
        let memory = self.regions.resolve(source);
        let flags = if flush { libc::RWF_DSYNC } else { 0 };
        let entry = match memory.buffer {
            Some(buffer) => opcode::WriteFixed::new(Fixed(file.0), memory.address, memory.bytes, buffer)
                .offset(position)
                .rw_flags(flags)
                .build(),
            None => opcode::Write::new(Fixed(file.0), memory.address, memory.bytes)
                .offset(position)
                .rw_flags(flags)
                .build(),
        };
        self.queue(key, entry, Held::Plain);
    }

    fn read(&mut self, key: Key, file: FileId, position: u64, mut into: Block, length: u32) {
        let memory = part(&mut into, 0, length);
        let entry = match self.regions.buffer_of(&into) {
            Some(buffer) => opcode::ReadFixed::new(Fixed(file.0), memory.address, memory.bytes, buffer)
                .offset(position)
                .build(),
            None => opcode::Read::new(Fixed(file.0), memory.address, memory.bytes).offset(position).build(),
        };
        self.queue(key, entry, Held::Block(into));
    }

    /// Sees to it that a wake completes something here; what that is stays within the ring.
    pub(super) fn attend(&mut self) {
        if !std::mem::replace(&mut self.attending, true) {
            let waker = Fd(self.waker.polled().as_fd().as_raw_fd());
            let entry = opcode::PollAdd::new(waker, libc::POLLIN as u32).build();
            self.enter_queue(&entry.user_data(WAKE.0));
        }
    }

    /// A message to another ring that is a completion there. Here it is one only when it fails.
    pub(super) fn knock_at(&mut self, ring: &OwnedFd, knocked: Key) {
        let entry = opcode::MsgRingData::new(Fd(ring.as_raw_fd()), 0, KNOCK.0, None).build();
        self.enter_queue(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(knocked.0));
    }

    /// Puts what the kernel touches in the slot, and the entry in the queue.
    fn queue(&mut self, key: Key, entry: squeue::Entry, held: Held) {
        let slot = &mut self.slots[key.slot() as usize];
        slot.key = key;
        slot.held = held;
        self.enter_queue(&entry.user_data(key.0));
    }

    #[expect(unsafe_code, reason = "the one place where entries reach the kernel")]
    fn enter_queue(&mut self, entry: &squeue::Entry) {
        // SAFETY: the entry of a slot points at blocks, headers and addresses that its `held` owns behind stable
        // addresses and that leave the slot only in `complete`, or at slices of regions, whose mappings the ring
        // keeps and which the kernel only reads. A ring that cannot drain leaks both instead of freeing them. That
        // of a poll or a knock points at nothing.
        unsafe { self.instance.push(entry) };
    }
}

/// A part of a block the ring is about to own.
fn part(block: &mut Block, offset: u32, length: u32) -> Memory {
    let bytes = &mut block.bytes_mut()[offset as usize..][..length as usize];
    Memory { address: bytes.as_mut_ptr(), bytes: length, buffer: None }
}
