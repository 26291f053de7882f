//! Links with peers, one of which the test plays.

use super::*;
use crate::node::door::Door;
use crate::node::ring::Summary;
use crate::paxos::{Ballot, Message};

/// Node 1 of three; node 2 is played by the test, which listens at its address; nobody listens at node 3's.
fn node_with_a_played_peer() -> (OneNode, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let others = [
        (2, listener.local_addr().unwrap().to_string()),
        (3, "127.0.0.1:1".into()),
    ];
    let others = others.map(|(node, address)| Member {
        node: NodeId(node),
        address,
    });
    (OneNode::start_among(100, others.into()), listener)
}

/// HELLO of node 2 as it is before it has met anybody.
fn hello_of_two(node: &OneNode) -> Frame {
    let mut hello = node.ask(|node| node.machine().hello_to(None));
    if let HelloKind::Node(own) = &mut hello.kind {
        own.node = NodeId(2);
        own.incarnation.token ^= 1;
        own.start.token ^= 1;
    }
    Frame::Hello(hello)
}

/// Takes the connection that the node dials to node 2, through its handshake.
fn take_dialled(node: &OneNode, listener: &std::net::TcpListener) -> Client {
    let mut link = Client::new(listener.accept().unwrap().0);
    assert!(
        matches!(link.receive(), Some((_, Frame::Hello(_)))),
        "the dialler speaks first"
    );
    link.send(0, &hello_of_two(node));
    while !node.ask(|node| node.server().peers[&NodeId(2)].is_up()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    link
}

fn happened(node: &OneNode, what: What) -> bool {
    node.ask(move |node| {
        let ring = &node.server().ring;
        ring.since(ring.last(1000)).1.any(|event| event.what == what)
    })
}

#[test]
fn a_peers_newer_connection_replaces_its_older_one() {
    let (node, _listener) = node_with_a_played_peer();
    let hello = hello_of_two(&node);
    let mut links: Vec<Client> = (0..2)
        .map(|_| {
            let mut link = node.connect();
            link.send(0, &hello);
            assert!(matches!(link.receive(), Some((_, Frame::Hello(_)))));
            link
        })
        .collect();
    let newer = links.pop().unwrap();
    assert_eq!(links.pop().unwrap().error(), Some(ErrorCode::Replaced));
    let mut newer = newer;
    newer.send(0, &Frame::Ping { nonce: 77 });
    assert_eq!(
        newer.receive(),
        Some((0, Frame::Pong { nonce: 77 })),
        "pong on the same connection"
    );
}

#[test]
fn a_short_answer_goes_back_where_the_question_came_from_if_the_peer_takes_it_there() {
    let (node, listener) = node_with_a_played_peer();
    let mut dialled = take_dialled(&node, &listener);
    let promised = |round| {
        let [ballot, promised] = [1, round].map(|round| Ballot { round, node: NodeId(2) });
        Frame::Paxos(Message::Nack { ballot, promised })
    };
    for (features, round) in [(hello::FEATURES, 7), (hello::FEATURES & !hello::FEATURE_ANSWERS, 8)] {
        let Frame::Hello(mut hello) = hello_of_two(&node) else {
            unreachable!()
        };
        hello.features = features;
        let mut accepted = node.connect();
        accepted.send(0, &Frame::Hello(hello));
        assert!(matches!(accepted.receive(), Some((_, Frame::Hello(_)))));
        let answer = promised(round);
        node.ask(move |node| node.server_mut().send(NodeId(2), 0, answer));
        let asked_on = if round == 7 { &mut accepted } else { &mut dialled };
        assert_eq!(asked_on.receive(), Some((0, promised(round))));
    }
    // The other way round: on the connection that the node dialled, it is answered, and not asked.
    let (answer, question) = (
        promised(9),
        Frame::Paxos(Message::Fetch {
            from: Slot(1),
            to: Slot(1),
        }),
    );
    dialled.send(0, &answer);
    dialled.send(0, &question);
    assert_eq!(dialled.error(), Some(ErrorCode::NotAllowed));
    assert!(happened(&node, What::From(NodeId(2), Summary::of(&answer, 0))));
    assert!(!happened(&node, What::From(NodeId(2), Summary::of(&question, 0))));
}

#[test]
fn a_closed_link_is_redialled_at_once_and_a_refused_redial_is_a_death() {
    let (node, listener) = node_with_a_played_peer();
    let link = take_dialled(&node, &listener);
    drop(link);
    let link = take_dialled(&node, &listener);
    assert!(!happened(&node, What::Died(NodeId(2))), "it was redialled and answered");
    drop(listener);
    drop(link);
    for _ in 0..2000 {
        if happened(&node, What::Died(NodeId(2))) {
            assert!(!happened(&node, What::Died(NodeId(3))), "who was never met cannot die");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the refused redial was not noticed");
}

#[test]
fn a_peer_that_answers_no_ping_is_dialled_anew() {
    let (node, listener) = node_with_a_played_peer();
    let _silent = take_dialled(&node, &listener);
    for _ in 0..5 {
        node.move_clock(Duration::from_secs(1));
        node.ask(|_| ());
    }
    let _again = take_dialled(&node, &listener);
    assert!(happened(&node, What::LinkDown(NodeId(2))));
    assert!(!happened(&node, What::Died(NodeId(2))), "silence is no death");
}

#[test]
fn a_dialled_node_that_is_another_or_refuses_does_not_come_up() {
    let (node, listener) = node_with_a_played_peer();
    let mut wrong = Client::new(listener.accept().unwrap().0);
    let Frame::Hello(mut hello) = hello_of_two(&node) else {
        unreachable!()
    };
    if let HelloKind::Node(of_two) = &mut hello.kind {
        of_two.node = NodeId(3);
    }
    wrong.send(0, &Frame::Hello(hello));
    assert_eq!(wrong.error(), Some(ErrorCode::UnknownNode));

    let mut refusing = Client::new(listener.accept().unwrap().0);
    let refusal = Frame::Error {
        code: ErrorCode::WrongIncarnation,
        detail: "you have lost your memory".into(),
    };
    let words = [
        frame::encode_to_bytes(&hello_of_two(&node), 0),
        frame::encode_to_bytes(&refusal, 0),
    ]
    .concat();
    refusing.stream.write_all(&words).unwrap();
    let _next = listener.accept().unwrap();
    assert!(
        !happened(&node, What::LinkUp(NodeId(2))),
        "a refused link was taken for up"
    );
}

#[test]
fn a_hundred_large_answers_at_once_go_to_a_peer_one_behind_the_other() {
    let (node, listener) = node_with_a_played_peer();
    let mut link = take_dialled(&node, &listener);
    let reply = Reply {
        outcome: Outcome::Done(Served::Done(Done {
            slot: Slot(9),
            revision: 9,
            answer: Answer::Found(crate::kv::command::Versioned {
                value: Bytes::from(vec![b'v'; 1 << 20]),
                created: 1,
                version: 1,
            }),
        })),
        leader: None,
    };
    let expected = reply.clone();
    // As when a hundred clients of node 2 read a key of a mebibyte, and one round confirms them all.
    node.ask(move |node| {
        for relay in 1..=100 {
            node.server_mut()
                .send(NodeId(2), relay, Frame::ForwardReply(reply.clone()));
        }
    });
    let mut relay = 1;
    while relay <= 100 {
        match link.receive() {
            Some((id, Frame::ForwardReply(reply))) => {
                assert!(id == relay && reply == expected, "answer {id} instead of {relay}");
                relay += 1;
            }
            Some(_) => {}
            None => panic!("the link was closed before answer {relay}"),
        }
    }
}
