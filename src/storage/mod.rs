//! The disk: a write-ahead log and the identity of a data directory, over one narrow door to files.
