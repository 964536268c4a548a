//! What a ring can be refused, and what to type about it.

use std::fmt;

use crate::op::Errno;

/// The kernel refused something a ring needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingError {
    /// What was asked.
    pub operation: RingOperation,
    /// What the kernel said.
    pub errno: Errno,
}

/// The calls a ring makes outside of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingOperation {
    /// Setting the ring up.
    Setup,
    /// Registering the ring's own descriptor.
    RegisterRing,
    /// Registering the table of files and sockets with so many places.
    RegisterTable {
        /// Places asked for.
        places: u32,
    },
    /// Creating or registering the eventfd.
    Eventfd,
    /// Putting one file or socket in the table.
    RegisterFile,
    /// Submitting and collecting.
    Enter,
}

impl RingError {
    pub(crate) fn new(operation: RingOperation, errno: impl Into<Errno>) -> Self {
        Self { operation, errno: errno.into() }
    }

    /// What the operator can do about it, if anything.
    fn help(self) -> Option<&'static str> {
        match (self.operation, self.errno.0) {
            (_, libc::EPERM | libc::ENOSYS | libc::EACCES) => Some(
                "allow io_uring: `sysctl -w kernel.io_uring_disabled=0`; in a container also its seccomp profile \
                 (docker: `--security-opt seccomp=unconfined`)",
            ),
            (RingOperation::Setup, libc::EINVAL) => Some("corelog needs Linux 6.6 or later: see `uname -r`"),
            (_, libc::ENOMEM) => {
                Some("allow locked memory: `ulimit -l unlimited`, in systemd `LimitMEMLOCK=infinity`")
            }
            (RingOperation::RegisterTable { .. } | RingOperation::RegisterFile, libc::EMFILE) => {
                Some("allow more open files: `ulimit -n 65536`, in systemd `LimitNOFILE=65536`")
            }
            _ => None,
        }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            RingOperation::Setup => f.write_str("cannot set up io_uring")?,
            RingOperation::RegisterRing => f.write_str("cannot register the ring")?,
            RingOperation::RegisterTable { places } => {
                write!(f, "cannot register {places} files with io_uring")?
            }
            RingOperation::Eventfd => f.write_str("cannot register an eventfd with io_uring")?,
            RingOperation::RegisterFile => f.write_str("cannot register a file with io_uring")?,
            RingOperation::Enter => f.write_str("io_uring_enter failed")?,
        }
        write!(f, ": {}", self.errno)?;
        match self.help() {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RingError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_io_uring_says_what_to_type() {
        let refused = RingError::new(RingOperation::Setup, Errno(libc::EPERM)).to_string();
        assert!(refused.contains("kernel.io_uring_disabled=0"), "{refused}");
        let table =
            RingError::new(RingOperation::RegisterTable { places: 70_000 }, Errno(libc::EMFILE)).to_string();
        assert!(table.contains("70000") && table.contains("ulimit -n"), "{table}");
    }
}
