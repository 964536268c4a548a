//! Network namespaces: which network the sockets of a thread belong to.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::op::Errno;

/// A network namespace. It is there as long as one of these or a thread inside of it is, whether it has a name or not.
#[derive(Clone, Debug)]
pub struct Network(Arc<OwnedFd>);

impl Network {
    /// The one whose name or whose link in `/proc/PID/ns` this is.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        Ok(Self(Arc::new(File::open(path).map_err(Errno::from)?.into())))
    }

    /// That of the calling thread.
    pub fn current() -> Result<Self, Errno> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// From here on the calling thread is in it, and so are the threads and processes that it starts. The sockets that it
    /// has stay where they are. Takes CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<(), Errno> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).map_err(Errno::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_network_is_neither_opened_nor_entered() {
        assert_eq!(Network::open(Path::new("/nowhere")).err(), Some(Errno(libc::ENOENT)));
        let file = Network::open(Path::new("/proc/self/status")).expect("a file");
        assert_eq!(file.enter(), Err(Errno(libc::EINVAL)));
        assert!(Network::current().is_ok());
    }
}
