//! A node's status as JSON: what `json status` shows, and what any client gets by STATUS. The names are stable, and
//! listed in `docs/debug.md`.

use super::faults::Faults;
use crate::machine::{DamageFinding, Machine, Status};
use crate::paxos::{Ballot, NodeId};
use crate::process;
use crate::time::Time;
use serde_json::{Value, json};

/// The status of the node that `machine` is. Ballots stand as `round.node`, and `null` for none.
pub fn json(machine: &Machine, now: Time, faults: &Faults) -> Value {
    let status = machine.status(now);
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<u16>>();
    let mut fields = json!({
        "id": status.id.0,
        "role": status.role,
        "leader": status.leader.map(|node| node.0),
        "ballot": ballot(status.ballot),
        "promised": ballot(status.promised),
        "used": ballot(status.used),
        "first_open": status.first_open.0,
        "chosen": status.chosen.0,
        "applied": status.applied.0,
        "revision": status.revision,
        "digest": format!("{:016x}", status.digest),
        "content": format!("{:016x}", status.content),
        "keys": status.keys,
        "data_bytes": status.bytes,
        "sessions": status.sessions,
        "peers_up": ids(&status.peers_up),
        "founded": status.founded,
        "cluster_id": format!("{:016x}", status.cluster_id),
        "waits_for": ids(&status.waits_for),
        "voter": status.voter,
        "voter_reason": status.voter_reason,
        "generation": status.generation,
        "diverged": status.diverged.map(|slot| slot.0),
        "diverged_reason": status.diverged_reason,
        "damage": damage(&status.damage),
        "acceptor_up": status.acceptor_up,
        "has_quorum": status.has_quorum,
        "open_slots": status.open_slots,
        "open_bytes": status.open_bytes,
        "queued_writes": status.queued_writes,
        "queued_bytes": status.queued_bytes,
        "waiting_reads": status.waiting_reads,
        "relays": status.relays,
        "free_bytes": status.free_bytes,
        "faults": faults.names(now),
        "uptime_ms": millis(status.uptime),
        "cpu_us": u64::try_from(process::cpu_time().as_micros()).unwrap_or(u64::MAX),
        "resident_bytes": process::resident_bytes(),
        "followers": followers(&status),
    });
    for more in [leases(&status), snapshots(&status, now)] {
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
    }
    fields
}

fn leases(status: &Status) -> Value {
    let leases = status.leases;
    json!({
        "lease_ms": millis(leases.length),
        "lease_left_ms": leases.left.map(millis),
        "lease_holder": leases.bound.and_then(|(holder, _)| holder).map(|holder| holder.0),
        "lease_bound_ms": leases.bound.map(|(_, left)| millis(left)),
        "lease_reads": status.lease_reads,
        "positions_asked": status.positions.asked,
        "positions_told": status.positions.told,
        "position_reads": status.positions.reads,
    })
}

fn snapshots(status: &Status, now: Time) -> Value {
    let (newest, under_way) = (status.snapshots.kept.first(), status.snapshots.under_way);
    json!({
        "snapshot_slot": newest.map(|newest| newest.slot.0),
        "snapshot_bytes": newest.map(|newest| newest.bytes),
        "snapshot_age_ms": newest.and_then(|newest| newest.at).map(|at| millis(now.since(at))),
        "snapshot_log_bytes": status.snapshots.log_bytes,
        "snapshot_taking": under_way.map(|(slot, ..)| slot.0),
        "snapshot_written": under_way.map(|(_, written, _)| written),
        "snapshot_expected": under_way.map(|(.., expected)| expected),
        "installing_slot": status.installing.map(|install| install.slot.0),
        "installing_received": status.installing.map(|install| install.received),
        "installing_bytes": status.installing.map(|install| install.bytes),
    })
}

pub(super) fn damage(findings: &[DamageFinding]) -> Vec<Value> {
    let rows = findings.iter();
    rows.map(|found| json!({ "file": found.file, "offset": found.offset, "kind": found.kind, "what": found.what }))
        .collect()
}

fn followers(status: &Status) -> Vec<Value> {
    let rows = status.followers.iter();
    rows.map(|(node, chosen, heard)| json!({ "id": node.0, "chosen": chosen.0, "heard_ms": millis(*heard) }))
        .collect()
}

/// A ballot as `round.node`; null for none.
pub(super) fn ballot(ballot: Ballot) -> Value {
    if ballot == Ballot::ZERO {
        Value::Null
    } else {
        Value::String(ballot.to_string())
    }
}

/// Whole milliseconds.
pub(super) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
