//! What the commands show, each as one JSON object; `reply` makes the text of it. The names are stable, and listed in
//! `docs/debug.md`.

use super::Context;
use super::command;
use crate::command::render::quote;
use crate::kv::{Command, SessionRef};
use crate::machine::{SlotView, Status};
use crate::node::flags::{Config, DebugListen};
use crate::node::metrics::Gauges;
use crate::node::peers::Peer;
use crate::node::status::{self, ballot, millis};
use crate::paxos::{Health, NodeId, Slot};
use crate::storage;
use crate::time::Time;
use crate::units::format_duration;
use crate::wire::Code;
use crate::wire::hello::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use serde_json::{Map, Value, json};

/// Slots of one list of accepted entries, and commands of one slot, that are shown.
const ACCEPTED_MAX: usize = 100;
const OPS_MAX: usize = 4;

pub(super) fn help() -> Value {
    let commands: Vec<Value> = command::help()
        .map(|(form, about)| json!({ "form": form, "about": about }))
        .collect();
    json!({ "commands": commands })
}

pub(super) fn status(context: &Context<'_>) -> Value {
    status::json(context.machine, context.now, context.faults)
}

/// The three answers, each with its reason, and whether all hold.
pub(super) fn ready(context: &Context<'_>) -> (Value, bool) {
    let machine = context.machine;
    let status = machine.status(context.now);
    let alive = !machine.is_ending();
    let obstacle = machine.write_obstacle(context.now);
    let ready = alive && status.has_quorum && obstacle.is_none();
    let alive_reason = if alive { "its loop turns" } else { "it was told to end" };
    let view = json!({
        "ready": ready,
        "alive": alive,
        "alive_reason": alive_reason,
        "has_quorum": status.has_quorum,
        "has_quorum_reason": quorum_reason(&status, machine.replica().membership().quorum(status.first_open)),
        "can_write": obstacle.is_none(),
        "can_write_reason": write_reason(&status, obstacle),
    });
    (view, ready)
}

fn quorum_reason(status: &Status, quorum: usize) -> String {
    let leader = status.leader.map_or_else(String::new, |leader| leader.to_string());
    match (status.role, status.has_quorum) {
        ("leader", true) => format!("it leads, and heard {quorum} or more nodes within the election timeout"),
        ("leader", false) => format!("it leads, but has not heard {quorum} nodes within the election timeout"),
        (_, true) => format!("it hears the leader, {leader}"),
        (_, false) if !status.founded => "the cluster is not founded yet".into(),
        (role, false) => format!("it hears no leader (role: {role})"),
    }
}

fn write_reason(status: &Status, obstacle: Option<Code>) -> String {
    let Some(code) = obstacle else {
        return match status.role {
            "leader" => "it leads, and a quorum has room on its disks".into(),
            _ => "it forwards to the leader".into(),
        };
    };
    let words = match code {
        Code::NotFounded => "the cluster is not founded yet",
        Code::ShuttingDown => "it was told to end",
        Code::Busy => "its queues are full",
        Code::NoQuorum => "too few nodes can be reached",
        Code::NoSpace => "too few nodes have room on their disks",
        Code::Diverged => "its state differs from another node's",
        _ => "no leader is known and reachable",
    };
    format!("{code}: {words}", code = code.name())
}

/// Where snapshots stand as one is asked for.
pub(super) fn snapshot(context: &Context<'_>) -> Value {
    let state = context.machine.state();
    let newest = context.machine.snapshots().kept.first().map(|newest| newest.slot.0);
    json!({ "applied": state.applied().0, "newest": newest })
}

pub(super) fn peers(context: &Context<'_>) -> Value {
    let status = context.machine.status(context.now);
    let rows = context.peers.values().map(|peer| peer_row(context, peer, &status));
    json!({ "peers": rows.collect::<Vec<Value>>() })
}

fn peer_row(context: &Context<'_>, peer: &Peer, status: &Status) -> Value {
    let now = context.now;
    let since = |at: Time| millis(now.since(at));
    let progress = status.followers.iter().find(|(node, ..)| *node == peer.node);
    let chosen = progress.map(|(_, chosen, _)| chosen.0);
    let links = [peer.outgoing, peer.incoming].into_iter().flatten();
    let waiting = links.filter_map(|number| context.links.get(number));
    json!({
        "id": peer.node.0,
        "address": peer.address.text,
        "up": peer.is_up(),
        "up_ms": peer.up_since.map(since),
        "dials_in_ms": peer.dial_at().map(|at| millis(at.since(now))),
        "accepted": peer.incoming.is_some(),
        "output_bytes": waiting.map(|link| link.connection.output_len()).sum::<usize>(),
        "chosen": chosen,
        "lag": chosen.map(|chosen| status.chosen.0.saturating_sub(chosen)),
        "heard_ms": progress.map(|(_, _, heard)| millis(*heard)),
    })
}

pub(super) fn ballots(context: &Context<'_>) -> Value {
    let replica = context.machine.replica();
    let accepted = replica.acceptor().map_or_else(Vec::new, |acceptor| {
        let votes = acceptor.votes_from(replica.learner().chosen_upto().next());
        votes
            .take(ACCEPTED_MAX)
            .map(|(slot, vote)| json!({ "slot": slot.0, "ballot": ballot(vote.ballot) }))
            .collect()
    });
    json!({
        "promised": ballot(replica.promised()),
        "used": ballot(replica.used()),
        "leader": ballot(replica.leader().unwrap_or_default()),
        "highest_seen": ballot(replica.highest_seen()),
        "campaigns_lost": replica.election().tries(),
        "accepted": accepted,
    })
}

pub(super) fn slots(context: &Context<'_>, from: Option<u64>, count: usize) -> Value {
    let machine = context.machine;
    let last = machine.last_slot();
    let newest = last.0.saturating_sub(count as u64) + 1;
    let rows = machine.slots(Slot(from.unwrap_or(newest)), count);
    json!({
        "last": last.0,
        "slots": rows.iter().map(slot_row).collect::<Vec<Value>>(),
    })
}

fn slot_row(view: &SlotView) -> Value {
    let commands = view.commands();
    let ops: Vec<String> = commands.iter().take(OPS_MAX).map(describe).collect();
    let entry = view.entry.as_ref();
    json!({
        "slot": view.slot.0,
        "state": view.state.name(),
        "ballot": view.ballot.map(|at| at.to_string()),
        "votes": view.votes.iter().map(|node| node.0).collect::<Vec<u16>>(),
        "entry": entry.map(ToString::to_string),
        "stamp_ms": entry.map(|entry| entry.stamp.0),
        "commands": entry.map(|_| commands.len()),
        "ops": ops,
    })
}

/// A command as a person reads it: what it does to which key, or which session it opens or closes.
fn describe(command: &Command) -> String {
    let name = command.op.name();
    match command.op.key() {
        Some(key) => format!("{name} {}", quote(key)),
        None => format!("{name} {}", session_name(command.session)),
    }
}

fn session_name(session: SessionRef) -> String {
    format!("{:032x}", session.id)
}

pub(super) fn digests(context: &Context<'_>, from: Option<u64>, count: usize) -> Value {
    let digests = context.machine.replica().digests();
    let (first, (last, _)) = (digests.first(), digests.newest());
    let newest = (last.0 + 1).saturating_sub(count as u64);
    let begin = from.unwrap_or(newest).max(first.0);
    let rows = (begin..=last.0).take(count).filter_map(|slot| {
        let digest = digests.of(Slot(slot))?;
        Some(json!({ "slot": slot, "digest": format!("{digest:016x}") }))
    });
    json!({
        "first": first.0,
        "last": last.0,
        "agreed": digests.agreed().0.0,
        "digests": rows.collect::<Vec<Value>>(),
    })
}

pub(super) fn sessions(context: &Context<'_>, count: usize) -> Value {
    let rows = context.machine.sessions().take(count).map(|(view, idle_ms)| {
        json!({
            "id": session_name(view.session),
            "opened": view.session.opened.0,
            "low": view.low,
            "kept": view.kept,
            "kept_bytes": view.kept_bytes,
            "last_slot": view.last_slot.0,
            "idle_ms": idle_ms,
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({ "living": context.machine.state().sessions(), "sessions": rows })
}

pub(super) fn timers(context: &Context<'_>) -> Value {
    let mut timers: Vec<(String, Time)> = Vec::new();
    let own = context.machine.timers();
    timers.extend(own.into_iter().map(|(name, due)| (name.to_string(), due)));
    let dials = context.peers.values().filter_map(|peer| Some((peer, peer.dial_at()?)));
    timers.extend(dials.map(|(peer, due)| (format!("dial_{}", peer.node), due)));
    timers.extend(context.faults.deadline().map(|due| ("fault".to_string(), due)));
    timers.extend(context.connection_deadline.map(|due| ("connection".to_string(), due)));
    timers.sort_by_key(|(_, due)| *due);
    let rows = timers
        .into_iter()
        .map(|(name, due)| json!({ "name": name, "due_in_ms": millis(due.since(context.now)) }));
    json!({ "timers": rows.collect::<Vec<Value>>() })
}

pub(super) fn config(config: &Config) -> Value {
    let members = config.members.iter();
    let members: Vec<String> = members
        .map(|member| {
            let NodeId(id) = member.node;
            format!("{id}={}", member.address)
        })
        .collect();
    let debug = match &config.debug {
        DebugListen::Off => "off",
        DebugListen::At(address) => address,
    };
    json!({
        "id": config.node.0,
        "version": env!("CARGO_PKG_VERSION"),
        "protocol_min": PROTOCOL_VERSION_MIN,
        "protocol_max": PROTOCOL_VERSION_MAX,
        "disk_format": storage::DISK_FORMAT,
        "cluster_name": config.cluster_name,
        "cluster": members,
        "data_dir": config.data_dir.to_string_lossy(),
        "listen": config.listen,
        "advertise": config.advertise,
        "debug_listen": debug,
        "debug_allow_remote": config.debug_allow_remote,
        "heartbeat": format_duration(config.heartbeat),
        "election_timeout": format_duration(config.election_timeout),
        "request_timeout": format_duration(config.request_timeout),
        "max_connections": config.max_connections,
        "segment_bytes": config.segment_bytes,
        "snapshot_bytes": config.snapshot_bytes,
        "scrub_bytes_per_second": config.scrub_bytes_per_second,
        "disk_reserve": config.disk_reserve,
        "queue_bytes": config.queue_bytes,
        "buffer_bytes": config.buffer_bytes,
        "cache_bytes": config.cache_bytes,
        "allow_faults": config.allow_faults,
        "acceptor_failures": config.acceptor_failures.map(|spec| spec.to_string()),
    })
}

/// How far the scrub has come, and damage that is not repaired.
pub(super) fn scrub(context: &Context<'_>) -> Value {
    let (machine, now) = (context.machine, context.now);
    let scrub = machine.scrub();
    let state = match (scrub.bytes_per_second, scrub.under_way) {
        (0, _) => "off",
        (_, Some(_)) => "reads",
        (_, None) => "rests",
    };
    json!({
        "state": state,
        "bytes_per_second": scrub.bytes_per_second,
        "pass_bytes": scrub.under_way.map(|(_, bytes)| bytes),
        "pass_ms": scrub.under_way.map(|(began, _)| millis(now.since(began))),
        "passes": scrub.passes,
        "last_pass_age_ms": scrub.last.map(|(ended, ..)| millis(now.since(ended))),
        "last_pass_ms": scrub.last.map(|(_, took, _)| millis(took)),
        "last_pass_bytes": scrub.last.map(|(.., bytes)| bytes),
        "found": scrub.found,
        "repaired": scrub.repaired,
        "damage": status::damage(machine.damage()),
    })
}

pub(super) fn metrics(context: &Context<'_>) -> Value {
    let digests = context.machine.replica().digests();
    let gauges = Gauges {
        digests: digests.counts(),
        diverged: digests.health() != Health::Sound,
        votes: context.machine.replica().votes(),
        generation: context.machine.incarnation().generation,
        scrub: context.machine.scrub(),
        damage: context.machine.damage().len(),
        lease_reads: context.machine.lease_reads(),
        positions: context.machine.positions(),
        ..context.gauges
    };
    let counters = context.metrics.list(&gauges);
    let fields = counters.into_iter().map(|(name, value)| (name, value.into()));
    Value::Object(fields.collect::<Map<String, Value>>())
}
