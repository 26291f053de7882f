//! Short ways to say a command, for the tests of this room.

use super::command::{Expect, Op, Versioned};
use bytes::Bytes;

pub(crate) fn put(key: &'static str, value: &str) -> Op {
    Op::Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        if_absent: false,
        want_previous: false,
    }
}

pub(crate) fn put_if_absent(key: &'static str, value: &str) -> Op {
    let mut op = put(key, value);
    if let Op::Put { if_absent, .. } = &mut op {
        *if_absent = true;
    }
    op
}

pub(crate) fn del(key: &'static str) -> Op {
    Op::Del {
        key: Bytes::from_static(key.as_bytes()),
        want_previous: false,
    }
}

pub(crate) fn cas(key: &'static str, old: &str, new: &str) -> Op {
    Op::Cas {
        key: Bytes::from_static(key.as_bytes()),
        expect: Expect::Value(Bytes::copy_from_slice(old.as_bytes())),
        value: Bytes::copy_from_slice(new.as_bytes()),
        want_previous: false,
    }
}

pub(crate) fn cas_version(key: &'static str, version: u64, new: &str) -> Op {
    Op::Cas {
        key: Bytes::from_static(key.as_bytes()),
        expect: Expect::Version(version),
        value: Bytes::copy_from_slice(new.as_bytes()),
        want_previous: false,
    }
}

pub(crate) fn with_previous(mut op: Op) -> Op {
    match &mut op {
        Op::Put { want_previous, .. } | Op::Del { want_previous, .. } | Op::Cas { want_previous, .. } => {
            *want_previous = true;
        }
        Op::Open | Op::Close => {}
    }
    op
}

pub(crate) fn versioned(value: &str, created: u64, version: u64) -> Versioned {
    Versioned {
        value: Bytes::copy_from_slice(value.as_bytes()),
        created,
        version,
    }
}
