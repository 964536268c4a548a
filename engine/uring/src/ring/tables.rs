//! The ring's table of files: one part for sockets, one for files and listeners.
//!
//! The ring hands the places out itself, so that an accept knows its place before it is submitted and no system
//! call is needed for a connection's whole life.

use crate::op::{FileId, ListenerId, SocketId};

/// Which places of the registered file table are free. Sockets come first, files and listeners after them.
#[derive(Debug)]
pub(super) struct Tables {
    sockets: u32,
    free_sockets: Vec<u32>,
    free_files: Vec<u32>,
}

impl Tables {
    pub(super) fn new(sockets: u32, files: u32) -> Self {
        Self {
            sockets,
            // Backwards, so that the first one given away is the lowest.
            free_sockets: (0..sockets).rev().collect(),
            free_files: (sockets..sockets + files).rev().collect(),
        }
    }

    pub(super) fn take_socket(&mut self) -> Option<SocketId> {
        self.free_sockets.pop().map(SocketId)
    }

    pub(super) fn give_socket(&mut self, socket: SocketId) {
        assert!(socket.0 < self.sockets, "a socket's place");
        self.free_sockets.push(socket.0);
    }

    pub(super) fn take_file(&mut self) -> Option<FileId> {
        self.free_files.pop().map(FileId)
    }

    pub(super) fn take_listener(&mut self) -> Option<ListenerId> {
        self.free_files.pop().map(ListenerId)
    }

    pub(super) fn give_file(&mut self, file: FileId) {
        assert!(file.0 >= self.sockets, "a file's place");
        self.free_files.push(file.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_files_never_get_the_same_place() {
        let mut tables = Tables::new(2, 2);
        assert_eq!(tables.take_socket(), Some(SocketId(0)));
        assert_eq!(tables.take_socket(), Some(SocketId(1)));
        assert_eq!(tables.take_socket(), None, "only two");
        assert_eq!(tables.take_file(), Some(FileId(2)));
        assert_eq!(tables.take_listener(), Some(ListenerId(3)));
        assert_eq!(tables.take_file(), None, "only two");
        tables.give_socket(SocketId(0));
        assert_eq!(tables.take_socket(), Some(SocketId(0)), "used again");
    }
}
