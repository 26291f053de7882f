//! `synod backup`: the state of a running cluster in one file, taken while it serves.
//!
//! 1. A linearizable read tells the slot behind which everything lies that was acknowledged before the backup began.
//! 2. A node, rather a follower, is asked for its snapshot behind that slot or a later one; it takes one if it has none.
//! 3. The file comes in pieces under a temporary name. After a cut, what is there is kept as long as somebody offers the
//!    same file: nodes that took a snapshot behind one slot have the same bytes.
//! 4. It is synced and proven to its last byte, its digest recomputed and compared with the one that was offered
//!    ([`crate::storage::backup`]); only then does it get its name.

use super::restore::{as_json, as_words, code};
use super::{Global, Output, exit};
use crate::client::blocking::Client;
use crate::client::source::Source;
use crate::client::{End, probe};
use crate::console::{complain, print};
use crate::kv::snapshot::Summary;
use crate::paxos::Slot;
use crate::storage::{Disk, Failure, File, Files, OpenError, backup};
use crate::wire::transfer::{CHUNK_BYTES, OFFSET_OF_NO_BYTE};
use crate::wire::{RequestOp, Served, Transfer};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pieces that are asked for and did not come yet.
const PIECES_AHEAD: u64 = 4;
/// Who is still taking its snapshot is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How often all endpoints are tried without one more piece.
const ROUNDS_MAX: u32 = 3;
/// How often a backup is begun anew because the snapshot that it copied was replaced meanwhile.
const RESTARTS_MAX: u32 = 10;

/// Write the state of the running cluster to a file, consistent and checked, while it serves
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// The file to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

/// Why there is no backup.
enum Refused {
    /// The file is there, or cannot be written, or is not what was sent.
    File(OpenError),
    Exists,
    /// No node could be copied from; what each said.
    NoSource(Vec<String>),
}

/// A snapshot that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    slot: Slot,
    bytes: u64,
    content: u64,
}

/// The file that is being made.
struct Copy {
    disk: Disk,
    name: String,
    temporary: String,
    file: std::fs::File,
    offer: Option<Offer>,
    /// So many bytes are there.
    length: u64,
    restarts: u32,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// The operating system failed this process, or standard output cannot be written.
pub fn run(global: &Global, args: &BackupArgs) -> io::Result<u8> {
    let mut client = Client::connect(&global.endpoints, global.options()?)?;
    let end = client.run(RequestOp::Get {
        key: Bytes::from_static(b"any"), // what is there does not matter, only behind which slot it was looked for
    })?;
    client.close()?;
    let End::Done(Served::Done(done)) = &end else {
        complain(&format!("the cluster does not serve: {end}"));
        return Ok(exit::of(&end));
    };
    match make(global, args, done.slot)? {
        Ok((summary, bytes)) => {
            print(words(global.output, &args.file, &summary, bytes).as_bytes())?;
            Ok(exit::DONE)
        }
        Err(Refused::Exists) => {
            complain(&format!("{} exists; --force replaces it", args.file.display()));
            Ok(exit::NOT_DONE)
        }
        Err(Refused::File(error)) => {
            complain(&error.to_string());
            Ok(code(&error))
        }
        Err(Refused::NoSource(reasons)) => {
            reasons.iter().for_each(|reason| complain(reason));
            Ok(exit::UNREACHABLE)
        }
    }
}

fn words(output: Output, file: &Path, summary: &Summary, bytes: u64) -> String {
    match output {
        Output::Json => {
            let mut object = as_json(summary);
            object["file"] = json!(file.display().to_string());
            object["file_bytes"] = json!(bytes);
            format!("{object}\n")
        }
        Output::Text => format!("{}: {} ({bytes} in the file)\n", file.display(), as_words(summary)),
    }
}

/// Makes the file; what it holds and its length.
fn make(global: &Global, args: &BackupArgs, floor: Slot) -> io::Result<Result<(Summary, u64), Refused>> {
    if args.file.exists() && !args.force {
        return Ok(Err(Refused::Exists));
    }
    let mut copy = match Copy::begin(&args.file) {
        Ok(copy) => copy,
        Err(failure) => return Ok(Err(Refused::File(failure.into()))),
    };
    let made = match fetch(global, &mut copy, floor)? {
        Ok(offer) => copy.finish(offer, args.force),
        Err(refused) => Err(refused),
    };
    if made.is_err() {
        copy.abandon();
    }
    Ok(made)
}

/// Copies the file from whoever has it; what was offered.
fn fetch(global: &Global, copy: &mut Copy, floor: Slot) -> io::Result<Result<Offer, Refused>> {
    let mut reasons = Vec::new();
    let mut rounds = 0;
    while rounds < ROUNDS_MAX {
        let before = copy.length;
        reasons.clear();
        for endpoint in sources(global)? {
            match copy_from(global, &endpoint, copy, floor) {
                Ok(offer) => return Ok(Ok(offer)),
                Err(Interrupted::Failed(failure)) => return Ok(Err(Refused::File(failure.into()))),
                Err(Interrupted::Source(why)) => reasons.push(format!("{endpoint}: {why}")),
            }
        }
        rounds = if copy.length > before { 0 } else { rounds + 1 };
        std::thread::sleep(ASK_AGAIN);
    }
    Ok(Err(Refused::NoSource(reasons)))
}

/// The endpoints in the order in which they are asked: followers first, to spare the leader.
fn sources(global: &Global) -> io::Result<Vec<String>> {
    let answers = probe::statuses(&global.endpoints, &global.options()?, global.timeout)?;
    let leads = |answer: &Result<Value, String>| answer.as_ref().is_ok_and(|status| status["role"] == "leader");
    let mut endpoints: Vec<(bool, String)> = answers
        .iter()
        .zip(&global.endpoints)
        .map(|(answer, endpoint)| (leads(answer), endpoint.clone()))
        .collect();
    endpoints.sort_by_key(|(leads, _)| *leads);
    Ok(endpoints.into_iter().map(|(_, endpoint)| endpoint).collect())
}

/// Why copying from one node ended.
enum Interrupted {
    /// The file cannot be written.
    Failed(Failure),
    /// The node, or the way to it, gave no more.
    Source(String),
}

/// Copies from one node what is still missing.
fn copy_from(global: &Global, endpoint: &str, copy: &mut Copy, floor: Slot) -> Result<Offer, Interrupted> {
    let mut source = Source::connect(endpoint, global.timeout)?;
    let mut offer = wait_for_offer(global, endpoint, &mut source, floor)?;
    copy.take_offer(offer)?;
    let mut asked = copy.length;
    while copy.length < offer.bytes {
        while asked < offer.bytes && asked < copy.length + PIECES_AHEAD * CHUNK_BYTES as u64 {
            let length = (offer.bytes - asked).min(CHUNK_BYTES as u64);
            source.ask(offer.slot, asked, length as u32)?;
            asked += length;
        }
        match source.receive(global.timeout)? {
            None => return Err(Interrupted::Source("it sends no more".into())),
            Some(Transfer::Offer { slot, bytes, content }) => {
                // Its snapshot was replaced by a newer one: every piece that was asked for is answered by the new offer.
                let newer = Offer { slot, bytes, content };
                if newer != offer {
                    offer = newer;
                    copy.take_offer(offer)?;
                    asked = copy.length;
                }
            }
            Some(Transfer::Chunk {
                slot,
                offset,
                crc,
                bytes,
            }) if slot == offer.slot => copy.put(offset, crc, &bytes)?,
            Some(_) => {}
        }
    }
    Ok(offer)
}

/// Waits until the node has a snapshot behind `floor`, as long as something happens there.
fn wait_for_offer(global: &Global, endpoint: &str, source: &mut Source, floor: Slot) -> Result<Offer, Interrupted> {
    let (mut seen, mut since) = (Value::Null, now());
    loop {
        source.ask(floor, OFFSET_OF_NO_BYTE, 1)?;
        if let Some(Transfer::Offer { slot, bytes, content }) = source.receive(ASK_AGAIN)? {
            return Ok(Offer { slot, bytes, content });
        }
        let answers = probe::statuses(&[endpoint.to_owned()], &global.options()?, global.timeout)?;
        let Some(Ok(status)) = answers.into_iter().next() else {
            return Err(Interrupted::Source("it no longer answers".into()));
        };
        let progress = ["applied", "snapshot_taking", "snapshot_written", "snapshot_slot"];
        let progress: Value = progress.iter().map(|name| status[*name].clone()).collect();
        if progress != seen {
            (seen, since) = (progress, now());
        } else if since.elapsed() > global.timeout {
            let reason = match &status["diverged"] {
                Value::Null => "it takes no snapshot (is there room on its disk?)",
                _ => "its state differs from the others'",
            };
            return Err(Interrupted::Source(reason.into()));
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a tool that waits for a node lives in real time"
)]
fn now() -> Instant {
    Instant::now()
}

impl Copy {
    fn begin(path: &Path) -> Result<Copy, Failure> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let disk = Disk::new(parent.unwrap_or(Path::new(".")));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = format!("{name}.tmp");
        let file = disk.create(&temporary);
        let file = file.map_err(|source| Failure::new("create", disk.path(&temporary), source))?;
        Ok(Copy {
            disk,
            name,
            temporary,
            file,
            offer: None,
            length: 0,
            restarts: 0,
        })
    }

    /// What is there stays if it is of the same file.
    fn take_offer(&mut self, offer: Offer) -> Result<(), Interrupted> {
        if self.offer == Some(offer) {
            return Ok(());
        }
        if self.length > 0 {
            self.restarts += 1;
            if self.restarts > RESTARTS_MAX {
                let why = "its snapshots are replaced faster than they can be copied";
                return Err(Interrupted::Source(why.into()));
            }
        }
        (self.offer, self.length) = (Some(offer), 0);
        self.file.truncate(0).map_err(|source| self.failed("cut", source))
    }

    fn put(&mut self, offset: u64, crc: u32, bytes: &[u8]) -> Result<(), Interrupted> {
        if offset != self.length {
            return Ok(()); // asked for before something was begun anew
        }
        if crc32fast::hash(bytes) != crc {
            return Err(Interrupted::Source(format!("a piece at offset {offset} came damaged")));
        }
        let written = self.file.write_all_at(&mut [IoSlice::new(bytes)], offset);
        written.map_err(|source| self.failed("write to", source))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, op: &'static str, source: io::Error) -> Interrupted {
        Interrupted::Failed(Failure::new(op, self.disk.path(&self.temporary), source))
    }

    /// Syncs the file, proves it, and gives it its name.
    fn finish(&mut self, offer: Offer, force: bool) -> Result<(Summary, u64), Refused> {
        let path = self.disk.path(&self.temporary);
        let op = |op, source| Refused::File(Failure::new(op, path.clone(), source).into());
        self.file.sync().map_err(|source| op("sync", source))?;
        let file = self.disk.open(&self.temporary).map_err(|source| op("read", source))?;
        let proven = backup::prove(file, &path).map_err(Refused::File)?;
        let summary = proven.header.summary;
        if (summary.slot, summary.content) != (offer.slot, offer.content) {
            let (slot, content) = (offer.slot, offer.content);
            let what = format!("it is not the snapshot of slot {slot} with digest {content:016x} that was offered");
            return Err(Refused::File(backup::not_what_it_says(&path, what)));
        }
        if !force && self.disk.open(&self.name).is_ok() {
            return Err(Refused::Exists); // made meanwhile
        }
        self.disk
            .rename(&self.temporary, &self.name)
            .and_then(|()| self.disk.sync_directory())
            .map_err(|source| op("rename", source))?;
        Ok((summary, self.length))
    }

    fn abandon(&self) {
        if let Err(error) = self.disk.remove(&self.temporary) {
            complain(&format!("{} is left: {error}", self.disk.path(&self.temporary)));
        }
    }
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Interrupted {
        Interrupted::Source(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer {
        slot: Slot(7),
        bytes: 300,
        content: 1,
    };

    fn copy() -> (tempfile::TempDir, Copy) {
        let place = tempfile::tempdir().expect("the system has room for a directory");
        let copy = Copy::begin(&place.path().join("out.snap")).expect("it can be made");
        (place, copy)
    }

    fn put(copy: &mut Copy, offset: u64, bytes: &[u8]) -> Result<(), Interrupted> {
        copy.put(offset, crc32fast::hash(bytes), bytes)
    }

    #[test]
    fn after_a_cut_the_same_file_is_gone_on_with_and_another_is_begun_anew() {
        let (_place, mut copy) = copy();
        assert!(copy.take_offer(OFFER).is_ok() && put(&mut copy, 0, &[1; 100]).is_ok());
        assert!(copy.take_offer(OFFER).is_ok(), "another node, the same file");
        assert_eq!(copy.length, 100);
        assert!(
            put(&mut copy, 200, &[3; 100]).is_ok(),
            "not the next piece: nothing is done with it"
        );
        assert!(
            matches!(copy.put(100, 0, &[2; 100]), Err(Interrupted::Source(_))),
            "damaged on the way"
        );
        assert_eq!(copy.length, 100);
        assert!(put(&mut copy, 100, &[2; 100]).is_ok());
        let newer = Offer { slot: Slot(8), ..OFFER };
        assert!(copy.take_offer(newer).is_ok());
        assert_eq!((copy.length, copy.file.metadata().map_or(1, |data| data.len())), (0, 0));
    }

    #[test]
    fn snapshots_that_are_replaced_again_and_again_are_not_followed_for_ever() {
        let (_place, mut copy) = copy();
        let is_taken = |slot| {
            let offer = Offer {
                slot: Slot(slot),
                ..OFFER
            };
            copy.take_offer(offer).is_ok() && put(&mut copy, 0, &[1; 10]).is_ok()
        };
        let taken = (1..50).map(is_taken).filter(|taken| *taken).count();
        assert_eq!(taken as u32, RESTARTS_MAX + 1);
    }

    #[test]
    fn what_came_is_proven_before_it_gets_its_name() {
        let (place, mut copy) = copy();
        assert!(copy.take_offer(OFFER).is_ok() && put(&mut copy, 0, &[1; 300]).is_ok());
        let refused = copy.finish(OFFER, false);
        assert!(matches!(refused, Err(Refused::File(OpenError::Damage(_)))));
        copy.abandon();
        assert_eq!(place.path().read_dir().map_or(1, Iterator::count), 0, "nothing is left");
    }
}
