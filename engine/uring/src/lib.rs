//! The ring, files, sockets, arena, affinity, probe and host: the only crate with unsafe.
