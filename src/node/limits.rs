//! Every bound and timer of the event loop that has no flag, in one place. `protocol.md` lists the timers again.

use std::time::Duration;

/// Bytes read from one connection at one time; what is left is read the next time, for which no turn waits.
pub const READ_BUDGET_BYTES: usize = 256 * 1024;
/// The same for a peer: the entries that wait in its socket share a sync.
pub const PEER_READ_BUDGET_BYTES: usize = 4 << 20;
/// Bytes read from all clients each time that a turn takes what came, about; who is left is read first the next time.
pub const TURN_READ_BYTES: u64 = 4 << 20;
/// Inputs of one such time after which no further client is read in it.
pub const TURN_INPUTS_MAX: usize = 2048;
/// One `read` asks for so much: the size of the one buffer into which the loop reads from all connections.
pub const READ_CHUNK_BYTES: usize = 64 * 1024;
/// So long a node that awaits the word of peers on a few reads polls, and lets others have the core, before it sleeps: two round
/// trips on one machine. Who sleeps must be woken, and where cores are shared that takes as long as all the rest of a read.
pub const AWAKE_FOR: Duration = Duration::from_micros(200);
/// Bytes written to one connection in one turn.
pub const WRITE_BUDGET_BYTES: usize = 4 << 20;
/// Readiness events taken from one poll; a full batch is followed by another poll that does not wait.
pub const EVENTS_PER_POLL: usize = 1024;
/// Polls of one gather at most, so that a flood of events cannot keep the turn from its sync.
pub const POLLS_PER_GATHER: usize = 8;
/// Connections accepted at one time from one listener.
pub const ACCEPTS_PER_TURN: usize = 128;

/// Longest frame taken before HELLO, bytes.
pub const HELLO_BYTES_MAX: usize = 4 * 1024;
/// A connection says HELLO so soon, or is closed.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A frame that began is whole so soon, or its connection is closed.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// A client whose answers wait is closed when it has taken nothing for so long.
pub const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a refused connection may take to fetch its last words.
pub const LINGER: Duration = Duration::from_secs(1);

/// Above so many bytes of encoded answers that wait, a client is not read any more, and its further answers wait as they
/// are, sharing the store's bytes; they are encoded when there is room.
pub const CLIENT_OUTPUT_HIGH_BYTES: usize = 1 << 20;
/// Below so many it is read again.
pub const CLIENT_OUTPUT_LOW_BYTES: usize = 256 * 1024;
/// Requests of one client whose answers were not encoded yet; at the bound it is not read until one is.
pub const CLIENT_IN_FLIGHT_MAX: usize = 1024;

/// Above so many bytes that wait for a peer, relayed requests and their answers wait as they are, sharing the bytes of
/// the store; they are encoded when there is room. As many can wait as the machine lets be in flight.
pub const PEER_RELAYED_HIGH_BYTES: usize = 8 << 20;
/// Above so many, bulk (ACCEPT, CHOSEN, PROMISE) to it is thrown away: catch-up and retries bring it later. This bounds
/// what a heartbeat can stand behind (`rules.md` 12).
pub const PEER_BULK_MAX_BYTES: usize = 24 << 20;
/// Above so many the link is closed: the peer does not even take the small frames.
pub const PEER_OUTPUT_MAX_BYTES: usize = 32 << 20;
/// How often a link is asked whether somebody is there.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// A ping that is unanswered for so long, with nothing else read meanwhile, closes the link as half open.
pub const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// First step of the backoff between dials; full jitter.
pub const DIAL_BACKOFF_BASE: Duration = Duration::from_millis(20);
/// Its cap.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A dial that is not connected by then is given up: retransmitted SYNs would come too seldom after a partition.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The dialled peer answers HELLO so soon, or is dialled again.
pub const DIAL_HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// A link that lived so long is redialled at once and without backoff when it closes.
pub const LINK_SETTLED: Duration = Duration::from_secs(1);
/// How long names of `--cluster` are taken as they were resolved before a failed dial resolves them again.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// Connections beyond `--max-connections` that are kept free for peers and for those that are being refused.
pub const RESERVED_CONNECTIONS: usize = 64;
/// Connections of the debug port; one more is refused.
pub const DEBUG_CONNECTIONS_MAX: usize = 512;
/// Lines of one debug connection that are executed in one turn: some show much, and others want their turn.
pub const DEBUG_LINES_PER_TURN: usize = 16;
/// Descriptors that are no connections: log, lock, listeners, poll, signals, standard streams, and some to spare. No
/// connection may take one of them, since a log that cannot open its next file ends the node.
pub const OTHER_DESCRIPTORS: usize = 32;
/// When descriptors run out, nothing is accepted for so long.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Frames held back by `fault delay`, for all links; one more is thrown away.
pub const DELAYED_FRAMES_MAX: usize = 65_536;
/// Log lines of one kind of refusal in one second; more are counted, and the count is told with the next line.
pub const COMPLAINTS_PER_SECOND: u32 = 5;
/// The same refusal of the same node is logged again after so long.
pub const COMPLAINT_REPEATED_AFTER: Duration = Duration::from_secs(30);
/// A clean end takes no longer.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the machine is told the free space of the disk.
pub const FREE_SPACE_EVERY: Duration = Duration::from_secs(1);

/// Most bytes that a snapshot gets in one turn: as many as the turn put behind the log, at least one block.
pub const SNAPSHOT_SLICE_MAX_BYTES: u64 = 1 << 20;
/// A snapshot is synced whenever so many bytes of it are not; nearly all of them are on the disk by then, as writing out begins
/// with each block.
pub const SNAPSHOT_SYNC_BYTES: u64 = 32 << 20;
/// A file that is taken away is cut by so much in one turn: where freed space is trimmed at once, a mebibyte takes one
/// millisecond.
pub const FILE_CUT_BYTES: u64 = 2 << 20;
/// A snapshot for which there was no room is tried again after so long.
pub const SNAPSHOT_PUT_OFF: Duration = Duration::from_secs(1);
/// A log that is kept longer for a peer, or while the acceptor is failed, is looked at again after so long.
pub const PEER_LOG_AGAIN: Duration = Duration::from_secs(1);
/// A peer that asked for a piece of a snapshot is taken to be fetching or loading it for so long.
pub const SEND_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of snapshots read for peers in one turn: a bounded share of the time of a node that others need, too.
pub const SERVE_TURN_BYTES: u64 = 1 << 20;
/// Pieces of a snapshot that one peer may wait for; one more is thrown away, and asked for again.
pub const CHUNKS_WAITING_MAX: usize = 16;
/// Blocks of a fetched snapshot that are loaded in one turn.
pub const SNAPSHOT_LOAD_BLOCKS: usize = 1;
/// Keys of a state of no use any more that are freed in one turn.
pub const SNAPSHOT_FREE_ITEMS: usize = 4096;
/// A repair that waits for something, a segment or an acceptor, looks again after so long.
pub const REPAIR_AGAIN: Duration = Duration::from_millis(20);
/// Bytes of votes that a repair writes again in one turn.
pub const REPAIR_TURN_BYTES: usize = 1 << 20;
