//! The event loop: one thread around one `mio::Poll` that gives the machine sockets, a disk and a clock.
