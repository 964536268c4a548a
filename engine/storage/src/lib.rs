//! One log: frames, extents, index, recovery. Disk operations are values; no system call is made here.
#![forbid(unsafe_code)]
