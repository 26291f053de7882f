//! Clients that behave, and clients that do not.

use super::*;

#[test]
fn a_client_says_hello_and_is_served() {
    OneNode::start(100).assert_serves();
}

#[test]
fn replies_come_in_any_order_under_their_ids_also_after_the_end_of_input() {
    let node = OneNode::start(100);
    let mut client = node.client();
    let session = client.open();
    for id in 100..110 {
        client.send(id, &Frame::Request(put(session, id - 99, b"key", b"value")));
    }
    client.send(
        200,
        &Frame::Request(Request {
            op: RequestOp::Status,
            ..get(b"")
        }),
    );
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut ids = Vec::new();
    while let Some((id, Frame::Reply(reply))) = client.receive() {
        assert!(matches!(reply.outcome, Outcome::Done(_)), "{reply:?}");
        ids.push(id);
    }
    ids.sort_unstable();
    assert_eq!(ids, [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 200]);
}

#[test]
fn every_kind_of_bad_bytes_has_its_error_and_hurts_nobody_else() {
    let node = OneNode::start(100);
    let hello = frame::encode_to_bytes(&client_hello("test"), 0);
    let changed = |at: usize, to: u8| {
        let mut bytes = hello.to_vec();
        bytes[at] = to;
        bytes
    };
    // A frame whose header is changed, with the checksum that fits the change.
    let sealed = |at: usize, to: u8| {
        let mut bytes = changed(at, to);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..4]);
        hasher.update(&bytes[8..]);
        bytes[4..8].copy_from_slice(&hasher.finalize().to_be_bytes());
        bytes
    };
    let then = |frame: &Frame| [hello.to_vec(), frame::encode_to_bytes(frame, 1).to_vec()].concat();
    let twice = [
        then(&Frame::Request(get(b"k"))),
        frame::encode_to_bytes(&Frame::Request(get(b"k")), 1).to_vec(),
    ];
    let hand_over = crate::paxos::Message::HandOver {
        ballot: crate::paxos::Ballot::ZERO,
    };
    // what is sent, which error comes back
    let table = [
        (vec![0xff; 64], ErrorCode::BadLength),
        (vec![0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8], ErrorCode::BadLength),
        (vec![0, 0, 0x20, 0, 1, 2, 3, 4], ErrorCode::BadLength),
        (changed(5, 0x55), ErrorCode::BadChecksum),
        (changed(30, 0x55), ErrorCode::BadChecksum),
        (sealed(8, 0x7f), ErrorCode::UnknownType),
        (sealed(9, 0x80), ErrorCode::BadBody),
        (sealed(20, b'X'), ErrorCode::BadMagic),
        (
            frame::encode_to_bytes(&Frame::Request(get(b"k")), 1).to_vec(),
            ErrorCode::NotAllowed,
        ),
        (
            frame::encode_to_bytes(&client_hello("other"), 0).to_vec(),
            ErrorCode::WrongCluster,
        ),
        (then(&client_hello("test")), ErrorCode::NotAllowed),
        (then(&Frame::Paxos(hand_over)), ErrorCode::NotAllowed),
        (
            then(&Frame::ForwardReply(Reply {
                outcome: Outcome::Unknown { code: Code::LeaderLost },
                leader: None,
            })),
            ErrorCode::NotAllowed,
        ),
        (twice.concat(), ErrorCode::NotAllowed),
    ];
    for (bytes, expected) in table {
        let before = node.errors(expected);
        let mut client = node.connect();
        client.stream.write_all(&bytes).unwrap();
        assert_eq!(client.error(), Some(expected), "{:02x?}", &bytes[..bytes.len().min(40)]);
        assert_eq!(node.errors(expected), before + 1, "{expected} is counted");
    }
    node.assert_serves();
}

#[test]
fn a_peer_of_an_unknown_id_or_with_our_own_id_is_refused() {
    let node = OneNode::start(100);
    let own = node.ask(|node| node.machine().hello_to(None));
    for (id, expected) in [(9, ErrorCode::UnknownNode), (1, ErrorCode::OwnId)] {
        let mut hello = own.clone();
        if let HelloKind::Node(node_hello) = &mut hello.kind {
            node_hello.node = NodeId(id);
        }
        let mut client = node.connect();
        client.send(0, &Frame::Hello(hello));
        assert_eq!(client.error(), Some(expected));
    }
    node.assert_serves();
}

#[test]
fn a_frame_that_ends_with_the_connection_is_counted() {
    let node = OneNode::start(100);
    let mut client = node.client();
    client.stream.write_all(&[0, 0, 0, 90, 1, 2, 3]).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.receive(), None);
    assert_eq!(node.errors(ErrorCode::BadBody), 1);
}

#[test]
fn text_on_the_binary_port_is_told_where_the_debug_port_is() {
    let node = OneNode::start(100);
    for text in ["get x\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "p"] {
        let mut client = node.connect();
        client.stream.write_all(text.as_bytes()).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        let answer = client.text();
        assert!(
            answer.contains("binary port") && answer.contains("127.0.0.1:0"),
            "{answer:?}"
        );
        assert_eq!(answer.lines().count(), 1);
    }
    node.assert_serves();
}

#[test]
fn who_says_no_hello_or_finishes_no_frame_is_closed_in_time() {
    let node = OneNode::start(100);
    let silent = node.connect();
    node.ask(|_| ());
    node.move_clock(HELLO_TIMEOUT);
    assert_eq!(silent.error(), Some(ErrorCode::TooSlow));

    let mut slow = node.client();
    let idle = node.client();
    slow.stream.write_all(&[0, 0, 0, 90, 1]).unwrap();
    while node.ask(|node| {
        node.server()
            .links
            .values()
            .all(|link| link.connection.frame_deadline().is_none())
    }) {
        std::thread::sleep(Duration::from_millis(1));
    }
    node.move_clock(FRAME_TIMEOUT);
    assert_eq!(slow.error(), Some(ErrorCode::TooSlow));
    assert_eq!(
        node.ask(|node| node.server().clients),
        1,
        "who is idle between frames may stay"
    );
    drop(idle);
}

#[test]
fn a_client_that_does_not_read_is_not_read_and_then_closed() {
    let node = OneNode::start(100);
    let mut client = node.client();
    let session = client.open();
    let value = vec![7; 1 << 20];
    client.ask(1, put(session, 1, b"big", &value));
    for id in 2..40 {
        client.send(id, &Frame::Request(get(b"big")));
    }
    // What was read before is answered; nothing more is read while the answers wait.
    while !node.ask(|node| node.server().links.values().any(|link| link.paused)) {
        client.send(fastrand::u64(1000..), &Frame::Ping { nonce: 1 });
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(node.ask(|node| node.server().queued) <= CLIENT_OUTPUT_HIGH_BYTES + (2 << 20));
    node.assert_serves();
    node.move_clock(SLOW_READER_TIMEOUT);
    while node.errors(ErrorCode::SlowReader) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    node.move_clock(LINGER);
    while node.ask(|node| node.server().queued) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    node.assert_serves();
}

#[test]
fn a_client_that_reads_at_last_gets_every_answer() {
    let node = OneNode::start(100);
    let mut client = node.client();
    let session = client.open();
    let value = vec![7; 1 << 20];
    client.ask(1, put(session, 1, b"big", &value));
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for id in 2..200 {
            let request = frame::encode_to_bytes(&Frame::Request(get(b"big")), id);
            writer.write_all(&request).unwrap();
            // A client with a small window, as a program would have.
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut answered: Vec<u64> = (2..200).map(|_| client.receive().unwrap().0).collect();
    sender.join().unwrap();
    answered.sort_unstable();
    assert_eq!(answered, (2..200).collect::<Vec<u64>>());
}

#[test]
fn when_all_connections_together_hold_too_much_clients_wait_and_each_gets_its_answer() {
    let node = OneNode::start(100);
    // Frames that are all but finished, together half as much again as all connections may hold.
    let mut clients: Vec<(Client, SessionRef)> = (0..BUFFER_BYTES * 3 / (2 << 20))
        .map(|_| {
            let mut client = node.client();
            let session = client.open();
            (client, session)
        })
        .collect();
    let writers = clients.iter().map(|(client, session)| {
        let request = Frame::Request(put(*session, 1, b"key", &vec![7; 1 << 20]));
        let (mut stream, bytes) = (client.stream.try_clone().unwrap(), frame::encode_to_bytes(&request, 9));
        std::thread::spawn(move || stream.write_all(&bytes[..bytes.len() - 1]).unwrap())
    });
    let writers: Vec<_> = writers.collect();
    while node.ask(|node| node.server().budget.stalled()) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    let held = node.ask(|node| node.server().budget.input());
    assert!((BUFFER_BYTES..BUFFER_BYTES + (2 << 20)).contains(&held), "{held} bytes");
    // Each in turn may finish, and makes room; who has not begun yet is behind those who have.
    let finishers: Vec<_> = clients
        .iter()
        .map(|(client, _)| client.stream.try_clone().unwrap())
        .zip(writers)
        .map(|(mut stream, writer)| {
            std::thread::spawn(move || {
                writer.join().unwrap();
                stream.write_all(&[7]).unwrap();
            })
        })
        .collect();
    for (client, _) in &mut clients {
        let (id, frame) = client.receive().unwrap();
        assert!(id == 9 && matches!(frame, Frame::Reply(_)), "{frame:?}");
    }
    for finisher in finishers {
        finisher.join().unwrap();
    }
    assert_eq!(
        node.ask(|node| (node.server().budget.input(), node.server().budget.stalled())),
        (0, 0)
    );
    node.assert_serves();
}

#[test]
fn above_the_limit_clients_are_refused_politely_and_peers_keep_their_reserve() {
    let node = OneNode::start(3);
    let mut clients: Vec<Client> = (0..3).map(|_| node.client()).collect();
    let mut fourth = node.connect();
    fourth.send(0, &client_hello("test"));
    assert_eq!(fourth.error(), Some(ErrorCode::TooManyConnections));
    // Connections that say nothing take no place from those that speak.
    let silent: Vec<Client> = (0..RESERVED_CONNECTIONS + 5).map(|_| node.connect()).collect();
    clients.pop();
    while node.ask(|node| node.server().clients) > 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    node.assert_serves();
    assert!(node.errors(ErrorCode::TooManyConnections) >= 2);
    drop(silent);
}

#[test]
fn the_debug_port_answers_lines_also_after_the_end_of_input() {
    let node = OneNode::start(100);
    let mut client = Client::new(TcpStream::connect(node.debug).unwrap());
    client.stream.write_all(b"ping\r\nnonsense\nping").unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    let text = client.text();
    let starts: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["OK", "ERR", "OK"], "{text:?}");
}
