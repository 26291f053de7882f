//! The limit of open files: raised as far as it goes, and told in connections.

use super::limits::{DEBUG_CONNECTIONS_MAX, OTHER_DESCRIPTORS, RESERVED_CONNECTIONS};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that the node likes to have beside its clients' connections.
const RESERVED: usize = DEBUG_CONNECTIONS_MAX + RESERVED_CONNECTIONS + OTHER_DESCRIPTORS;
/// Fewer connections than this are no node; below, it takes the risk of running out.
const SOCKETS_MIN: usize = 8;

/// What the limit of open files allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Client connections: what was wanted, or fewer.
    pub clients: usize,
    /// Connections of all kinds. What is beyond belongs to files: a log that cannot open one ends the node.
    pub sockets: usize,
}

/// Raises the soft limit of descriptors so that `wanted` client connections fit, as far as the hard limit lets it, and
/// tells what does fit.
pub fn raise(wanted: usize) -> Room {
    let limit = getrlimit(Resource::Nofile);
    let needed = (wanted + RESERVED) as u64;
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|soft| soft < needed) {
        let raised = Rlimit {
            current: Some(needed.min(hard)),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            log::warn!("the limit of open files could not be raised: {error}");
        }
    }
    fitting(wanted, getrlimit(Resource::Nofile).current)
}

/// What fits under a soft limit of descriptors.
fn fitting(wanted: usize, soft: Option<u64>) -> Room {
    let soft = soft.map_or(usize::MAX, |soft| usize::try_from(soft).unwrap_or(usize::MAX));
    let sockets = soft.saturating_sub(OTHER_DESCRIPTORS).max(SOCKETS_MIN);
    let beside = (DEBUG_CONNECTIONS_MAX + RESERVED_CONNECTIONS).min(sockets / 2);
    Room {
        clients: wanted.min(sockets - beside),
        sockets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_cut_to_what_the_limit_allows() {
        // wanted, soft limit, clients, sockets
        for (wanted, soft, clients, sockets) in [
            (10_000, None, 10_000, usize::MAX - OTHER_DESCRIPTORS),
            (10_000, Some(1 << 20), 10_000, (1 << 20) - OTHER_DESCRIPTORS),
            (10_000, Some(2048), 2048 - RESERVED, 2048 - OTHER_DESCRIPTORS),
            (100, Some(1024), 100, 1024 - OTHER_DESCRIPTORS),
            (100, Some(OTHER_DESCRIPTORS as u64 + 40), 20, 40),
            (100, Some(8), 4, SOCKETS_MIN),
        ] {
            assert_eq!(
                fitting(wanted, soft),
                Room { clients, sockets },
                "{wanted} under {soft:?}"
            );
        }
    }
}
