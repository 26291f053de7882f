//! The ring of events as `tail` shows it: as text, or each event as a JSON object.

use super::reply::push_line;
use crate::node::ring::{Event, Position, Ring, Summary, What};
use crate::paxos::NodeId;
use serde_json::{Map, Value, json};

/// A session that follows the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Follower {
    pub(super) position: Position,
    pub(super) json: bool,
}

/// Everything from `position` on, a line an event; the ring has bounded it. What was missed is counted first.
pub(super) fn write_since(ring: &Ring, follower: Follower, out: &mut Vec<u8>) {
    let (missed, events) = ring.since(follower.position);
    if missed > 0 {
        let line = match follower.json {
            true => json!({ "missed": missed }).to_string(),
            false => format!("missed {missed} events"),
        };
        push_line(out, &line);
    }
    for event in events {
        let line = match follower.json {
            true => event_json(event).to_string(),
            false => event.to_string(),
        };
        push_line(out, &line);
    }
}

/// The last `count` events in one object.
pub(super) fn last_json(ring: &Ring, count: usize) -> Value {
    let (_, events) = ring.since(ring.last(count));
    json!({ "events": events.map(event_json).collect::<Vec<Value>>() })
}

/// The names are stable; what has no meaning for a kind of event is left out.
fn event_json(event: &Event) -> Value {
    let mut object = Map::new();
    object.insert("at_us".into(), (event.at.0 / 1000).into());
    let mut put = |name: &str, value: Value| {
        object.insert(name.into(), value);
    };
    match &event.what {
        What::From(peer, summary) => put_frame(&mut put, "from", *peer, summary),
        What::To(peer, summary) => put_frame(&mut put, "to", *peer, summary),
        What::Dropped(peer, summary, why) => {
            put_frame(&mut put, "dropped", *peer, summary);
            put("reason", (*why).into());
        }
        What::Request {
            connection,
            request,
            name,
        } => {
            put("event", "request".into());
            put("connection", (*connection).into());
            put("request", (*request).into());
            put("op", (*name).into());
        }
        What::Reply {
            connection,
            request,
            outcome,
        } => {
            put("event", "reply".into());
            put("connection", (*connection).into());
            put("request", (*request).into());
            put("outcome", (*outcome).into());
        }
        What::Synced { records, up_to, took } => {
            put("event", "synced".into());
            put("records", (*records).into());
            put("up_to", (*up_to).into());
            put("took_us", u64::try_from(took.as_micros()).unwrap_or(u64::MAX).into());
        }
        What::LinkUp(peer) => put_link(&mut put, "link_up", *peer),
        What::LinkDown(peer) => put_link(&mut put, "link_down", *peer),
        What::Died(peer) => put_link(&mut put, "died", *peer),
        What::Note(note) => {
            put("event", "note".into());
            put("text", note.to_string().into());
        }
    }
    Value::Object(object)
}

fn put_link(put: &mut impl FnMut(&str, Value), event: &str, peer: NodeId) {
    put("event", event.into());
    put("peer", peer.0.into());
}

fn put_frame(put: &mut impl FnMut(&str, Value), event: &str, peer: NodeId, summary: &Summary) {
    put_link(put, event, peer);
    put("message", summary.name.into());
    if let Some(ballot) = summary.ballot {
        put("ballot", ballot.to_string().into());
    }
    if let Some(slot) = summary.slot {
        put("slot", slot.0.into());
    }
    if summary.request != 0 {
        put("request", summary.request.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;
    use std::time::Duration;

    #[test]
    fn events_stand_as_text_and_as_objects() {
        let mut ring = Ring::default();
        let summary = Summary {
            name: "ACCEPT",
            ballot: None,
            slot: Some(crate::paxos::Slot(7)),
            request: 0,
        };
        ring.push(Time::from_millis(3), What::To(NodeId(2), summary));
        let synced = What::Synced {
            records: 1,
            up_to: 4,
            took: Duration::from_micros(90),
        };
        ring.push(Time::from_millis(4), synced);
        let mut out = Vec::new();
        let all = |json| Follower {
            position: ring.last(9),
            json,
        };
        write_since(&ring, all(false), &mut out);
        let text = String::from_utf8(out.clone()).unwrap();
        assert_eq!(
            text,
            "3.000ms -> n2 ACCEPT slot=7\n4.000ms synced records=1 up_to=4 took=90us\n"
        );
        out.clear();
        write_since(&ring, all(true), &mut out);
        let first = String::from_utf8(out).unwrap().lines().next().unwrap().to_string();
        assert_eq!(
            first,
            r#"{"at_us":3000,"event":"to","peer":2,"message":"ACCEPT","slot":7}"#
        );
        assert_eq!(last_json(&ring, 1)["events"][0]["took_us"], 90);
    }
}
