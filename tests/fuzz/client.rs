//! Whatever nodes say to a client: its machine ends every operation, once and in time.

use crate::driver::{Target, fuzz};
use crate::wire::{frames, mend_frames};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::time::Duration;
use synod::client::{ClientMachine, Effect, End, Input, Options};
use synod::kv::Op;
use synod::time::Time;
use synod::wire::frame::{self, FRAME_BYTES_MAX};
use synod::wire::{Frame, RequestOp};

/// How long each operation may take.
const DEADLINE: Duration = Duration::from_secs(5);
const OPERATIONS: u64 = 4;

/// One client, and three nodes of which one stream of bytes is all that they ever say.
struct Scene {
    client: ClientMachine,
    now: Time,
    /// Endpoints that are dialled or up.
    open: Vec<usize>,
    /// Requests that were sent, by endpoint.
    asked: Vec<(usize, u64)>,
    ends: BTreeMap<u64, End>,
    is_closed: bool,
}

impl Scene {
    fn new() -> Scene {
        let addresses = (1..=3).map(|node| format!("node{node}")).collect();
        Scene {
            client: ClientMachine::new(addresses, Options::new(1, 7)),
            now: Time::from_millis(1),
            open: Vec::new(),
            asked: Vec::new(),
            ends: BTreeMap::new(),
            is_closed: false,
        }
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.client.step(self.now, input, &mut effects);
        assert!(effects.len() < 100, "{} effects of one input", effects.len());
        for effect in effects {
            match effect {
                Effect::Connect { endpoint } => self.open.push(endpoint),
                Effect::Close { endpoint } => self.open.retain(|open| *open != endpoint),
                Effect::Send {
                    endpoint,
                    request_id,
                    frame,
                } => {
                    assert!(self.open.contains(&endpoint), "a frame for a connection that is closed");
                    if matches!(frame, Frame::Request(_)) {
                        self.asked.push((endpoint, request_id));
                    }
                }
                Effect::Finished { token, end } => {
                    assert!(self.ends.insert(token, end).is_none(), "operation {token} ended twice");
                }
                Effect::Closed => self.is_closed = true,
            }
        }
    }

    /// Time goes on to the client's own deadline, if that is not later than `until`.
    fn wait(&mut self, until: Time) -> bool {
        let due = self.client.deadline().filter(|due| *due <= until);
        if let Some(due) = due {
            self.now = self.now.max(due);
            self.step(Input::Deadline);
        }
        due.is_some()
    }

    /// A frame comes from one of the nodes; ids of requests are made to fit one that was asked.
    fn arrive(&mut self, number: usize, request_id: u64, frame: Frame) {
        let Some(endpoint) = self.open.get(number % self.open.len().max(1)).copied() else {
            return;
        };
        let asked: Vec<u64> = self
            .asked
            .iter()
            .filter(|(of, _)| *of == endpoint)
            .map(|(_, request_id)| *request_id)
            .collect();
        let fitting = asked.get(request_id as usize % asked.len().max(1)).copied();
        let request_id = if request_id < 1000 {
            fitting.unwrap_or(request_id)
        } else {
            request_id
        };
        self.step(Input::Frame {
            endpoint,
            request_id,
            frame,
        });
    }
}

fn operation(token: u64) -> RequestOp {
    let key = Bytes::from_static(b"key");
    match token % 3 {
        0 => RequestOp::Get { key },
        1 => RequestOp::Status,
        _ => RequestOp::Write(Op::Del {
            key,
            want_previous: true,
        }),
    }
}

#[test]
fn a_client_ends_every_operation_whatever_nodes_say() {
    let frames = frames();
    // A HELLO of a node, and then everything that the document shows.
    let hello = frames
        .iter()
        .filter(|frame| frame[8] == 1)
        .max_by_key(|frame| frame.len())
        .expect("a HELLO of a node");
    let replies = frames.iter().filter(|frame| frame[8] == 0x31);
    let mut seeds: Vec<Vec<u8>> = replies
        .map(|reply| [&hello[..], reply, &hello[..], reply, reply].concat())
        .collect();
    seeds.push([&hello[..], &frames.concat()].concat());
    let target = Target {
        mend: mend_frames,
        ..Target::new("client", seeds, 10_000)
    };
    fuzz(&target, |stream| {
        let mut scene = Scene::new();
        let deadline = scene.now + DEADLINE;
        for token in 0..OPERATIONS {
            scene.step(Input::Submit {
                token,
                op: operation(token),
                deadline,
            });
        }
        for endpoint in scene.open.clone() {
            scene.step(Input::Connected { endpoint });
        }
        play(&mut scene, stream, deadline);
        while scene.wait(deadline + Duration::from_secs(1)) {}
        assert_eq!(scene.ends.len() as u64, OPERATIONS, "operations that never ended");
        scene.step(Input::Close {
            deadline: scene.now + DEADLINE,
        });
        while !scene.is_closed && scene.wait(scene.now + DEADLINE * 2) {}
        assert!(scene.is_closed, "the client never closes");
        scene.ends.values().map(|end| format!("{end:?} ")).collect()
    });
}

/// The stream's frames come one by one, from one node after the other; dials in between go through.
fn play(scene: &mut Scene, stream: &[u8], deadline: Time) {
    let mut buffer = BytesMut::from(stream);
    for number in 0.. {
        let endpoint = scene.open.get(number % scene.open.len().max(1)).copied();
        match frame::next_frame(&mut buffer, FRAME_BYTES_MAX) {
            Ok(None) => return,
            Ok(Some((header, body))) => match frame::decode(header, body) {
                Ok(frame) => scene.arrive(number, header.request_id, frame),
                Err(error) => {
                    let detail = error.to_string();
                    endpoint.into_iter().for_each(|endpoint| {
                        scene.step(Input::Garbled {
                            endpoint,
                            detail: detail.clone(),
                        })
                    });
                }
            },
            Err(error) => {
                let detail = error.to_string();
                return endpoint.into_iter().for_each(|endpoint| {
                    scene.step(Input::Lost {
                        endpoint,
                        detail: detail.clone(),
                    })
                });
            }
        }
        let before = scene.open.clone();
        if number % 3 == 2 && scene.now < deadline {
            scene.wait(deadline);
        }
        for endpoint in scene.open.clone().into_iter().filter(|open| !before.contains(open)) {
            scene.step(Input::Connected { endpoint });
        }
    }
}
