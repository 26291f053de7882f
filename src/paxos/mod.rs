//! Agreement: Multi-Paxos over opaque entries, pure.
//!
//! Lamport, "Paxos Made Simple" (2001): sections 2.2 (the single decree) and 3 (the log of slots); the duties of a
//! real leader after Chandra et al., "Paxos Made Live" (2007). The three roles are three structs in three files, each
//! with the state that the paper gives it; one [`Replica`] owns them and routes messages between them.
//!
//! * [`ballot`]: names of rounds, slots and nodes. [`entry`]: what is agreed on. [`message`]: what nodes say.
//! * [`membership`]: who the members are, and sets of distinct voters. [`identity`]: whose votes count.
//! * [`acceptor`], [`proposer`], [`learner`]: the roles. [`replica`]: the three together, with time.
//!
//! Not here: what an entry means ([`crate::kv`]), bytes ([`crate::wire`]), files, sockets, clocks.

pub mod ballot;
pub mod entry;
pub mod identity;
pub mod membership;
pub mod message;

pub use ballot::{Ballot, NodeId, Slot};
pub use entry::{Entry, EntryKind, LogTime};
pub use identity::{Incarnation, Start, Voter};
pub use membership::{Membership, VoterSet};
pub use message::Message;
