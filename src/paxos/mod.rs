//! Agreement: Multi-Paxos over opaque entries, pure.
//!
//! Lamport, "Paxos Made Simple" (2001): sections 2.2 (the single decree) and 3 (the log of slots); the duties of a
//! real leader after Chandra et al., "Paxos Made Live" (2007). The three roles are three structs in three files, each
//! with the state that the paper gives it; one [`Replica`] owns them and routes messages between them.
//!
//! * [`ballot`]: names of rounds, slots and nodes. [`entry`]: what is agreed on. [`message`]: what nodes say.
//! * [`membership`]: who the members are, and sets of distinct voters. [`identity`]: whose votes count.
//! * [`digests`]: whether all nodes' states come from the same log, with the same effect.
//! * [`acceptor`], [`proposer`], [`learner`]: the roles, safety only. [`promises`]: what several acceptors show together.
//! * [`election`], [`rounds`], [`lease`]: liveness and confirmation, once asked and for a while. [`recovery`]: a memory that was lost, and what peers show of it.
//! * [`replica`]: all of them together, with time and durability. [`outbox`]: what it asks of the world.
//!
//! Not here: what an entry means ([`crate::kv`]), bytes ([`crate::wire`]), files, sockets, clocks.

pub mod acceptor;
pub mod ballot;
pub mod digests;
pub mod election;
pub mod entry;
pub mod identity;
pub mod learner;
pub mod lease;
pub mod membership;
pub mod message;
pub mod outbox;
pub mod promises;
pub mod proposer;
pub mod recovery;
pub mod replica;
pub mod rounds;
#[cfg(test)]
pub(crate) mod testing;

pub use ballot::{Ballot, NodeId, Slot};
pub use digests::Health;
pub use entry::{Entry, EntryKind, LogTime};
pub use identity::{Incarnation, Life, Start, Voter};
pub use membership::{Membership, VoterSet};
pub use message::Message;
pub use outbox::{Note, Outbox, Output, PeerFault, Write};
pub use replica::{Replica, Stance};
