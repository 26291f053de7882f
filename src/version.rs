//! What `--version` tells: of the crate, of the protocol, of the disk.

use crate::storage::DISK_FORMAT;
use crate::wire::hello::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use std::sync::LazyLock;

/// One line, such as `0.1.0 (protocol 1 to 1, disk format 1)`.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (protocol {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}, disk format {DISK_FORMAT})",
        env!("CARGO_PKG_VERSION")
    )
});
