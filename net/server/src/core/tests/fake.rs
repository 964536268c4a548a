//! A ring without a kernel: completes what it was given in any order, in pieces, late, or cancelled, by a seed.

use std::collections::{HashMap, VecDeque};

use corelog_model::{Block, Slice};
use corelog_storage::{DiskCompletion, DiskError, DiskOp, FileName};
use corelog_uring::{Accepted, Completion, Errno, FileId, Key, SocketId, Submission};

use crate::core::Output;

const BROKEN_PIPE: Errno = Errno(32);
const EIO: Errno = Errno(5);
const SECTOR: usize = 512;

/// Something that happened.
pub(super) enum Happened {
    Ring(Completion),
    Background(DiskCompletion, Option<(FileName, FileId)>),
}

/// The other end of a connection.
#[derive(Default)]
pub(super) struct Socket {
    /// On its way to the broker.
    pub(super) incoming: VecDeque<u8>,
    /// Arrived at the peer.
    pub(super) outgoing: Vec<u8>,
    /// Bytes the peer will still take.
    pub(super) window: usize,
    /// The peer sends no more.
    pub(super) ended: bool,
    /// The peer's process is gone: it sends no more and what is sent to it comes back.
    pub(super) gone: bool,
    /// Shut down by the broker.
    pub(super) shut: bool,
    pub(super) closed: bool,
}

struct Pending {
    submission: Submission,
    slices: Vec<Slice>,
    cancelled: bool,
}

/// The ring, the disk and the network.
pub(super) struct Fake {
    seed: u64,
    pending: Vec<Pending>,
    background: Vec<DiskOp>,
    files: HashMap<FileId, Vec<u8>>,
    /// What lay where something was written that no flush has confirmed: position and bytes, oldest first.
    unflushed: HashMap<FileId, Vec<(usize, Vec<u8>)>>,
    names: HashMap<FileName, FileId>,
    pub(super) sockets: Vec<Socket>,
    backlog: VecDeque<SocketId>,
    /// The next accepts fail with this.
    pub(super) accept_error: Option<Errno>,
    /// No write completes.
    pub(super) disk_stands: bool,
    /// One frame, superblock copy or flush in so many fails or ends short; 0: none. So for reads, and for what is done in
    /// the background.
    pub(super) write_errors: usize,
    pub(super) read_errors: usize,
    pub(super) background_errors: usize,
    /// How many did.
    pub(super) failures: usize,
    /// Sends that were submitted so far.
    pub(super) sends: usize,
}

impl Fake {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            pending: Vec::new(),
            background: Vec::new(),
            files: HashMap::new(),
            unflushed: HashMap::new(),
            names: HashMap::new(),
            sockets: Vec::new(),
            backlog: VecDeque::new(),
            accept_error: None,
            disk_stands: false,
            write_errors: 0,
            read_errors: 0,
            background_errors: 0,
            failures: 0,
            sends: 0,
        }
    }

    /// A number below `bound`.
    pub(super) fn random(&mut self, bound: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as usize % bound
    }

    /// Whether it goes wrong, one time in so many.
    fn fails(&mut self, one_in: usize) -> bool {
        let fails = one_in > 0 && self.random(one_in) == 0;
        self.failures += usize::from(fails);
        fails
    }

    /// The broker's process is gone, and with it all that was under way; the files stay. Their names, ids and lengths.
    pub(super) fn die(&mut self) -> Vec<(FileName, FileId, u64)> {
        self.pending.clear();
        self.background.clear();
        self.backlog.clear();
        let files = self.names.iter().map(|(&name, &id)| (name, id, self.files[&id].len() as u64));
        let mut files: Vec<_> = files.collect();
        files.sort_by_key(|&(name, ..)| name);
        files
    }

    /// A peer that connects and reads everything.
    pub(super) fn connect(&mut self) -> usize {
        self.sockets.push(Socket { window: usize::MAX, ..Socket::default() });
        let peer = self.sockets.len() - 1;
        self.backlog.push_back(SocketId(peer as u32));
        peer
    }

    /// Takes over what is to be done.
    pub(super) fn take(&mut self, out: &mut Output) {
        for submission in out.submissions.drain(..) {
            let slices = match &submission {
                Submission::Send { slices, .. } => {
                    self.sends += 1;
                    out.slices[slices.start as usize..slices.end as usize].to_vec()
                }
                _ => Vec::new(),
            };
            if let Submission::Cancel { target, .. } = submission {
                let of = self.pending.iter_mut().find(|pending| pending.submission.key() == target);
                of.into_iter().for_each(|pending| pending.cancelled = true);
            }
            self.pending.push(Pending { submission, slices, cancelled: false });
        }
        out.slices.clear();
        self.background.extend(out.background.drain(..).map(|(_, op)| op));
    }

    /// One thing that can happen now, if there is any. `read` gives the bytes of a slice of the log.
    pub(super) fn next(&mut self, read: impl Fn(Slice) -> Vec<u8>) -> Option<Happened> {
        if !self.background.is_empty() && self.random(2) == 0 || self.pending.is_empty() {
            return self.end_background();
        }
        let first = self.random(self.pending.len());
        let order = (first..self.pending.len()).chain(0..first);
        let possible = order.into_iter().find(|&at| self.can_complete(&self.pending[at]));
        match possible {
            Some(at) => {
                let pending = self.pending.swap_remove(at);
                Some(Happened::Ring(self.complete(pending, read)))
            }
            None => self.end_background(),
        }
    }

    fn can_complete(&self, pending: &Pending) -> bool {
        let socket = |id: &SocketId| &self.sockets[id.0 as usize];
        match &pending.submission {
            Submission::Accept { .. } => {
                pending.cancelled || self.accept_error.is_some() || !self.backlog.is_empty()
            }
            Submission::Recv { socket: id, .. } => {
                let socket = socket(id);
                pending.cancelled || socket.shut || socket.ended || socket.gone || !socket.incoming.is_empty()
            }
            Submission::Send { socket: id, head_length, .. } => {
                let bytes =
                    *head_length as usize + pending.slices.iter().map(|s| s.length as usize).sum::<usize>();
                let socket = socket(id);
                pending.cancelled || socket.shut || socket.gone || socket.window >= bytes
            }
            Submission::Write { .. } | Submission::Sync { .. } => !self.disk_stands,
            _ => true,
        }
    }

    fn complete(&mut self, pending: Pending, read: impl Fn(Slice) -> Vec<u8>) -> Completion {
        let Pending { submission, slices, cancelled } = pending;
        let key = submission.key();
        let mut completion = Completion { key, result: Ok(0), block: None, accepted: None };
        match submission {
            Submission::Accept { .. } => match self.accept_error.take() {
                _ if cancelled => completion.result = Err(Errno::CANCELED),
                Some(errno) => completion.result = Err(errno),
                None => {
                    let socket = self.backlog.pop_front().expect("somebody connects");
                    let peer = Some(([127, 0, 0, 1], 1000).into());
                    completion.accepted = Some(Accepted { socket, peer });
                }
            },
            Submission::Recv { socket, block, offset, length, .. } => {
                return self.receive(key, socket, block, offset as usize, length as usize, cancelled);
            }
            Submission::Send { socket, head, head_length, .. } => {
                let head = head.expect("our sends have a head");
                let mut bytes = head.bytes()[..head_length as usize].to_vec();
                for slice in slices {
                    match slice.block == head.id() {
                        true => bytes.extend(&head.bytes()[slice.offset as usize..slice.end() as usize]),
                        false => bytes.extend(read(slice)),
                    }
                }
                completion.result = self.send(socket, &bytes);
                completion.block = Some(head);
            }
            Submission::Write { file, position, source, flush, .. } => {
                completion.result = self.write_frame(file, position as usize, &read(source), flush);
            }
            Submission::Read { file, position, mut into, length, .. } => {
                let into_bytes = &mut into.bytes_mut()[..length as usize];
                completion.result = self.read(file, position as usize, into_bytes);
                completion.block = Some(into);
            }
            Submission::Shutdown { socket, .. } => self.sockets[socket.0 as usize].shut = true,
            Submission::Close { socket, .. } => {
                let busy = self.pending.iter().any(|pending| match &pending.submission {
                    Submission::Recv { socket: of, .. } | Submission::Send { socket: of, .. } => {
                        *of == socket
                    }
                    _ => false,
                });
                assert!(!busy, "a socket is closed after its operations have ended");
                self.sockets[socket.0 as usize].closed = true;
            }
            Submission::Sync { file, .. } => completion.result = self.sync(file),
            Submission::Cancel { .. } => {}
        }
        completion
    }

    fn receive(
        &mut self,
        key: Key,
        id: SocketId,
        mut block: Block,
        offset: usize,
        length: usize,
        cancelled: bool,
    ) -> Completion {
        let waiting = self.sockets[id.0 as usize].incoming.len();
        let socket = &self.sockets[id.0 as usize];
        let ended = socket.ended || socket.gone;
        let result = if socket.shut || waiting == 0 && ended {
            Ok(0)
        } else if waiting == 0 {
            assert!(cancelled, "nothing else ends an empty receive");
            Err(Errno::CANCELED)
        } else {
            // Also when it was cancelled: the bytes may have been faster.
            let bytes = 1 + self.random(waiting.min(length));
            for (at, byte) in self.sockets[id.0 as usize].incoming.drain(..bytes).enumerate() {
                block.bytes_mut()[offset + at] = byte;
            }
            Ok(bytes as u32)
        };
        Completion { key, result, block: Some(block), accepted: None }
    }

    fn send(&mut self, id: SocketId, bytes: &[u8]) -> Result<u32, Errno> {
        let socket = &mut self.sockets[id.0 as usize];
        if socket.shut || socket.gone {
            return Err(BROKEN_PIPE);
        }
        let taken = bytes.len().min(socket.window);
        socket.outgoing.extend(&bytes[..taken]);
        if socket.window != usize::MAX {
            socket.window -= taken;
        }
        if taken == 0 { Err(Errno::CANCELED) } else { Ok(taken as u32) }
    }

    fn write_frame(
        &mut self,
        file: FileId,
        position: usize,
        bytes: &[u8],
        flush: bool,
    ) -> Result<u32, Errno> {
        if !flush {
            let before = self.files[&file][position..][..bytes.len()].to_vec();
            self.unflushed.entry(file).or_default().push((position, before));
        }
        if !self.fails(self.write_errors) {
            self.write(file, position, bytes);
            return Ok(bytes.len() as u32);
        }
        // Whatever is said of it, some of it is there.
        let moved = self.random(bytes.len() / SECTOR) * SECTOR;
        self.write(file, position, &bytes[..moved]);
        let said = [Err(EIO), Err(Errno::NO_SPACE), Ok(moved as u32)];
        said[self.random(said.len())]
    }

    fn sync(&mut self, file: FileId) -> Result<u32, Errno> {
        let unflushed = self.unflushed.remove(&file).unwrap_or_default();
        if !self.fails(self.write_errors) {
            return Ok(0);
        }
        // What the system calls clean from now on has not reached the disk.
        for (position, before) in unflushed.into_iter().rev() {
            self.write(file, position, &before);
        }
        Err(EIO)
    }

    fn read(&mut self, file: FileId, position: usize, into: &mut [u8]) -> Result<u32, Errno> {
        let found = self.files[&file].get(position..).unwrap_or(&[]);
        let found = &found[..found.len().min(into.len())];
        let bytes = found.len();
        into[..bytes].copy_from_slice(found);
        if !self.fails(self.read_errors) {
            return Ok(bytes as u32);
        }
        let moved = self.random(bytes.div_ceil(SECTOR).max(1)) * SECTOR;
        into[moved..].fill(0xee);
        let said = [Err(EIO), Ok(moved as u32)];
        said[self.random(said.len())]
    }

    fn write(&mut self, file: FileId, position: usize, bytes: &[u8]) {
        let content = self.files.get_mut(&file).expect("the file is open");
        content[position..position + bytes.len()].copy_from_slice(bytes);
    }

    fn end_background(&mut self) -> Option<Happened> {
        if self.background.is_empty() {
            return None;
        }
        let at = self.random(self.background.len());
        let op = self.background.remove(at);
        let id = op.id();
        let mut opened = None;
        if self.fails(self.background_errors) {
            let said = [DiskError::NoSpace, DiskError::Io { errno: EIO.0 }];
            let result = Err(said[self.random(said.len())]);
            return Some(Happened::Background(DiskCompletion { id, result, block: None }, None));
        }
        match op {
            DiskOp::CreateExtent { file, bytes, .. } => {
                opened = Some((file, self.create(file, bytes as usize)))
            }
            DiskOp::Zero { file, position, bytes, .. } => {
                let id = self.names[&file];
                self.write(id, position as usize, &vec![0; bytes as usize]);
            }
            DiskOp::Remove { file, .. } => {
                self.names.remove(&file);
            }
            DiskOp::WriteFrame { .. }
            | DiskOp::Sync { .. }
            | DiskOp::WriteSuperblock { .. }
            | DiskOp::Read { .. } => {
                panic!("not background work")
            }
        }
        let result: Result<u32, DiskError> = Ok(0);
        Some(Happened::Background(DiskCompletion { id, result, block: None }, opened))
    }

    fn create(&mut self, file: FileName, bytes: usize) -> FileId {
        let id = FileId(self.files.len() as u32);
        self.files.insert(id, vec![0; bytes]);
        self.names.insert(file, id);
        id
    }
}
