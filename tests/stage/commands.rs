//! The commands of a script. Several may stand in one line, with `;` between them.
//!
//! ```text
//! cluster 3 [apart] [led by n1] [pre_vote=off] [backoff=off] [cache_bytes=0] [read_lease=500ms]
//!                              founded nodes without a leader; apart: not started, nobody has met
//! node n4 lists n1 n2 n4       one more node (or another in its place), with this --cluster
//! start n1 [read_lease=0ms], crash n1, shutdown n1
//! erase n1, save n1, restore n1 the data directory is lost; is copied; the copy takes its place
//! meet n1 n2                   both dial each other
//! open n1                      the client opens its session
//! put n1 x=1, get n2 x [--stale], del n1 x, cas n1 x --old 1 2
//!                              the client asks a node
//! fill n1 x 700000             puts a value of so many bytes
//! again n2                     the client's last write, sent once more, under its number
//! deliver [[n1 ->] n2] [KIND]  delivers what is under way; each receiver gets its messages in one turn
//! drop, repeat [[n1 ->] n2] [KIND] [#2]  loses it; puts a second copy behind it (#2: only the second of these)
//! keep [[n1 ->] n2] [KIND]      it has come, and is not looked at yet: a crash of its sender does not take it away
//! settle                       delivers everything until nothing is under way
//! wait [n1] 600ms              time passes (at one node), nothing arrives
//! wait n1                      until the node's next deadline
//! sleep n1 600ms               its machine is suspended: no timer notices, the clock that leases count by does
//! run 2s                       time passes at all nodes, and everything arrives at once
//! campaign n1                  n1 waits until it stands up
//! elect n1                     it does so until it leads, and everything is delivered
//! cut n1 [-> n2], heal         what is sent is lost, silently; also what is under way
//! hold-sync n1, sync n1        the disk is held back; everything appended is synced, from now on at each turn again
//! acceptor n1 down|up          the acceptor fails, restarts
//! room n1 1000000              so many bytes are free on its disk
//! snapshot n1                  takes a snapshot, and removes all that it stands for from its log
//! damage n1                    flips a bit of its newest snapshot
//! corrupt n1                   its applied state is altered behind the log's back
//! status [n1], disk n1, waiting, show|hide heartbeats|records|founding
//! ```

use super::{Letter, Stage, words};
use std::str::FromStr;
use std::time::Duration;
use synod::command::parse_line;
use synod::kv::Op;
use synod::machine::{Input, Settings};
use synod::paxos::NodeId;
use synod::units::parse_duration;
use synod::wire::RequestOp;

/// A campaign that was not begun after so long will not be.
const ELECTION_MAX: Duration = Duration::from_secs(5);

impl Stage {
    /// Carries out one line; what is to be shown of it.
    pub(crate) fn play(&mut self, line: &str) -> Vec<String> {
        line.split(';').for_each(|command| self.command(command.trim()));
        self.take_lines()
    }

    fn command(&mut self, command: &str) {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (verb, words.as_slice()) {
            ("cluster", [count, options @ ..]) => self.cluster(parsed(count), options),
            ("node", [id, "lists", listed @ ..]) => self.another_node(node(id), listed),
            ("start", [id, options @ ..]) => {
                let settings = &mut self.node(node(id)).settings;
                options.iter().for_each(|option| set_option(settings, option));
                self.start_and_meet(node(id));
            }
            ("crash", [id]) => self.crash(node(id)),
            ("erase", [id]) => self.erase(node(id)),
            ("save", [id]) => self.save(node(id)),
            ("restore", [id]) => self.restore(node(id)),
            ("meet", [a, b]) => self.meet_again(node(a), node(b)),
            ("shutdown", [id]) => self.turn(node(id), vec![Input::Shutdown]),
            ("open", [id]) => self.ask(node(id), RequestOp::Write(Op::Open)),
            ("put" | "get" | "del" | "cas", [id, arguments @ ..]) => self.ask_in_words(node(id), verb, arguments),
            ("fill", [id, key, size]) => self.fill(node(id), key, parsed(size)),
            ("again", [id]) => self.ask_again(node(id)),
            ("deliver", which) => {
                let letters = self.take_letters(&Meant::parse(which));
                if letters.is_empty() {
                    self.say("nothing to deliver".into());
                }
                self.deliver(letters);
            }
            ("drop", which) => drop(self.take_letters(&Meant::parse(which))),
            ("keep", which) => self.keep(&Meant::parse(which)),
            ("repeat", which) => self.repeat(&Meant::parse(which)),
            ("settle", []) => self.settle(),
            ("wait", [id]) if id.starts_with('n') => {
                self.wait_for_deadline(node(id));
            }
            ("wait", [span]) => self.pass(&self.ids(), duration(span), false),
            ("wait", [id, span]) => self.pass(&[node(id)], duration(span), false),
            ("run", [span]) => self.pass(&self.ids(), duration(span), true),
            ("sleep", [id, span]) => self.node(node(id)).slept += duration(span),
            ("campaign", [id]) => self.wait_for_campaign(node(id)),
            ("elect", [id]) => self.elect(node(id)),
            ("cut", [id]) => self.cut_off(node(id)),
            ("cut", [from, "->", to]) => self.cut_link(node(from), node(to)),
            ("heal", []) => self.cut.clear(),
            ("hold-sync", [id]) => self.node(node(id)).holds_sync = true,
            ("sync", [id]) => {
                self.node(node(id)).holds_sync = false;
                self.end_turn(node(id));
            }
            ("acceptor", [id, "down"]) => self.turn(node(id), vec![Input::AcceptorDown]),
            ("acceptor", [id, "up"]) => self.turn(node(id), vec![Input::AcceptorUp]),
            ("room", [id, bytes]) => {
                let bytes = parsed(bytes);
                self.turn(node(id), vec![Input::FreeSpace { bytes }]);
            }
            ("snapshot", [id]) => self.take_snapshot(node(id)),
            ("damage", [id]) => self.damage_snapshot(node(id)),
            ("corrupt", [id]) => self.turn(node(id), vec![Input::Corrupt]),
            ("status", []) => self.ids().into_iter().for_each(|id| self.say(self.status_line(id))),
            ("status", [id]) => self.say(self.status_line(node(id))),
            ("disk", [id]) => self.show_disk(node(id)),
            ("waiting", []) => self.show_waiting(),
            ("show", [what]) => self.set_shown(what, true),
            ("hide", [what]) => self.set_shown(what, false),
            _ => panic!("no such command: {command}"),
        }
    }

    /// Founds a cluster quietly; if one shall lead, the client's session is opened, too, and all have applied it.
    fn cluster(&mut self, count: u16, options: &[&str]) {
        let ids: Vec<NodeId> = (1..=count).map(NodeId).collect();
        for id in &ids {
            let mut settings = Settings::new(*id, ids.clone());
            settings.start.counter = 0;
            options.iter().for_each(|option| set_option(&mut settings, option));
            self.add(settings);
        }
        self.session.id = 1;
        if options.contains(&"apart") {
            return;
        }
        self.is_quiet = true;
        ids.iter().for_each(|id| self.start(*id));
        self.meet_all();
        self.settle();
        if let Some(at) = options.windows(2).position(|pair| pair == ["led", "by"]) {
            let leader = node(options[at + 2]);
            // Acceptors that have leases wait behind every start, the first one too.
            let lease = self.nodes[&leader].settings.read_lease;
            self.pass(&ids, lease, false);
            self.elect(leader);
            self.ask(leader, RequestOp::Write(Op::Open));
            self.settle();
            self.pass(&[leader], Duration::from_millis(50), true);
        }
        self.is_quiet = false;
        self.command("status");
    }

    fn another_node(&mut self, id: NodeId, words: &[&str]) {
        let (options, listed): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.contains('='));
        let mut settings = Settings::new(id, listed.into_iter().map(node).collect());
        settings.start.counter = 0;
        options.iter().for_each(|option| set_option(&mut settings, option));
        self.add(settings);
    }

    /// In a founded cluster a node meets all when it starts; before that the script says who meets whom.
    fn start_and_meet(&mut self, id: NodeId) {
        self.start(id);
        if self.is_founded(id) {
            let peers = self.ids().into_iter().filter(|peer| *peer != id);
            peers.for_each(|peer| self.meet_again(id, peer));
        }
    }

    fn is_founded(&self, id: NodeId) -> bool {
        let node = &self.nodes[&id];
        node.machine
            .as_ref()
            .is_some_and(|machine| machine.status(node.now).founded)
    }

    /// Between founded nodes the rosters that go behind each HELLO arrive at once.
    fn meet_again(&mut self, a: NodeId, b: NodeId) {
        self.meet(a, b);
        if self.is_founded(a) && self.is_founded(b) {
            let is_between = |letter: &Letter| [(a, b), (b, a)].contains(&(letter.from, letter.to));
            let is_roster = |letter: &mut Letter| letter.kind == "ROSTER" && is_between(letter);
            let rosters = self.network.extract_if(.., is_roster).collect();
            self.deliver(rosters);
        }
    }

    fn ask_in_words(&mut self, id: NodeId, verb: &str, arguments: &[&str]) {
        // `x=1` is how a script writes the two words of a put.
        let line = format!("{verb} {}", arguments.join(" ").replacen('=', " ", 1));
        let op = parse_line(&line).and_then(|command| command.into_request_op());
        self.ask(id, op.unwrap_or_else(|error| panic!("{line}: {error}")));
    }

    /// A put of so many bytes.
    fn fill(&mut self, id: NodeId, key: &str, size: usize) {
        let op = Op::Put {
            key: key.as_bytes().to_vec().into(),
            value: vec![b'x'; size].into(),
            if_absent: false,
            want_previous: false,
        };
        self.ask(id, RequestOp::Write(op));
    }

    fn ask_again(&mut self, id: NodeId) {
        let writes = self.asked.iter().filter(|request| request.number > 0);
        let request = writes.last().expect("the client wrote before").clone();
        self.hand_in(id, request);
    }

    /// Messages that are meant leave the network, in the order in which they were sent.
    fn take_letters(&mut self, meant: &Meant) -> Vec<Letter> {
        let letters: Vec<Letter> = self.network.extract_if(.., |letter| meant.fits(letter)).collect();
        match meant.only {
            None => letters,
            Some(only) => {
                let (taken, others) =
                    (letters.into_iter().enumerate()).partition::<Vec<_>, _>(|(at, _)| *at + 1 == only);
                self.network.extend(others.into_iter().map(|(_, letter)| letter));
                taken.into_iter().map(|(_, letter)| letter).collect()
            }
        }
    }

    fn repeat(&mut self, meant: &Meant) {
        let meant = self.network.iter().filter(|letter| meant.fits(letter));
        let copies: Vec<Letter> = meant.map(Letter::copy).collect();
        self.network.extend(copies);
    }

    fn keep(&mut self, meant: &Meant) {
        let meant = self.network.iter_mut().filter(|letter| meant.fits(letter));
        meant.for_each(|letter| letter.has_come = true);
    }

    /// Waits until the node stands up: asks, or campaigns if it does not ask.
    fn wait_for_campaign(&mut self, id: NodeId) {
        let mut waited = Duration::ZERO;
        while waited < ELECTION_MAX {
            waited += self.wait_for_deadline(id);
            if self.role(id) == Some("candidate") {
                return;
            }
        }
        panic!("{id} did not stand up");
    }

    fn elect(&mut self, id: NodeId) {
        let mut waited = Duration::ZERO;
        while waited < ELECTION_MAX {
            waited += self.wait_for_deadline(id);
            self.settle();
            if self.role(id) == Some("leader") {
                return;
            }
        }
        panic!("{id} was not elected");
    }

    fn role(&self, id: NodeId) -> Option<&'static str> {
        let node = &self.nodes[&id];
        node.machine.as_ref().map(|machine| machine.status(node.now).role)
    }

    /// Waits until the node's next deadline has come; how long that was.
    fn wait_for_deadline(&mut self, id: NodeId) -> Duration {
        let node = &self.nodes[&id];
        let due = node.machine.as_ref().and_then(|machine| machine.deadline());
        let span = due.expect("a node that runs waits for something").since(node.now);
        self.pass(&[id], span, false);
        span
    }

    fn cut_off(&mut self, id: NodeId) {
        for peer in self.ids() {
            self.cut_link(id, peer);
            self.cut_link(peer, id);
        }
    }

    fn cut_link(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
        self.network
            .retain(|letter| letter.has_come || (letter.from, letter.to) != (from, to));
    }

    fn show_disk(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let is_shown = |record: &&synod::wire::Record| self.shown.founding || !words::is_of_founding(record);
        let records: Vec<String> = node
            .disk
            .records()
            .iter()
            .filter(is_shown)
            .map(words::of_record)
            .collect();
        records
            .into_iter()
            .for_each(|record| self.say(format!("{id} holds {record}")));
    }

    fn show_waiting(&mut self) {
        let lines: Vec<String> = (self.network.iter())
            .filter(|letter| self.is_shown(letter.kind))
            .map(|letter| {
                format!(
                    "{} -> {}  {}",
                    letter.from,
                    letter.to,
                    words::of_input(letter.kind, &letter.input)
                )
            })
            .collect();
        lines.into_iter().for_each(|line| self.say(line));
    }

    fn set_shown(&mut self, what: &str, is_shown: bool) {
        *match what {
            "heartbeats" => &mut self.shown.heartbeats,
            "records" => &mut self.shown.records,
            "founding" => &mut self.shown.founding,
            _ => panic!("show what? {what}"),
        } = is_shown;
    }
}

/// Which messages a command means: from whom, to whom, of which kind; empty means any. `#2`: only the second of them.
#[derive(Debug, Default)]
struct Meant {
    only: Option<usize>,
    from: Vec<NodeId>,
    to: Vec<NodeId>,
    kinds: Vec<String>,
}

impl Meant {
    fn parse(words: &[&str]) -> Meant {
        let mut meant = Meant::default();
        for word in words {
            match *word {
                "->" => meant.from = std::mem::take(&mut meant.to),
                only if only.starts_with('#') => meant.only = Some(parsed(&only[1..])),
                kind if kind.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_') => {
                    meant.kinds.push(kind.into());
                }
                id => meant.to.push(node(id)),
            }
        }
        meant
    }

    fn fits(&self, letter: &Letter) -> bool {
        (self.from.is_empty() || self.from.contains(&letter.from))
            && (self.to.is_empty() || self.to.contains(&letter.to))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == letter.kind))
    }
}

impl Letter {
    fn copy(&self) -> Letter {
        Letter {
            input: self.input.clone(),
            ..*self
        }
    }
}

fn set_option(settings: &mut Settings, option: &str) {
    let Some((name, value)) = option.split_once('=') else {
        return;
    };
    match name {
        "pre_vote" => settings.rules.pre_vote = value == "on",
        "backoff" => settings.rules.backoff = value == "on",
        "cache_bytes" => settings.cache_bytes = parsed(value),
        "lease_from_sending" => settings.rules.lease_from_sending = value == "on",
        "read_lease" => settings.read_lease = duration(value),
        "name" => settings.cluster_name = value.into(),
        _ => panic!("no such option: {option}"),
    }
}

fn node(word: &str) -> NodeId {
    let number = word.strip_prefix('n').unwrap_or_else(|| panic!("{word} is no node"));
    NodeId(parsed(number))
}

fn parsed<T: FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

fn duration(word: &str) -> Duration {
    parse_duration(word).unwrap_or_else(|error| panic!("{word}: {error}"))
}
