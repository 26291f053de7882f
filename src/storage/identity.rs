//! `IDENTITY`: whose data directory this is, and every start that was made from it (`rules.md` 2).
//!
//! One small file, written under a temporary name, synced, renamed, and its directory synced: it is always whole, so a
//! bad checksum is damage. It is written once at each start, before the first HELLO, and never else. A node that lost its
//! memory takes a new incarnation; that is a record of the log (LIFE), in place of the one that stands here.
//!
//! Not here: the roster and *founded*, and what is remembered of others; those are records of the log.

use super::DISK_FORMAT;
use super::error::{Damage, DamageKind, Failure, OpenError};
use super::files::{File, Files};
use crate::paxos::{Incarnation, NodeId, Start};
use crate::wire::bytes::{DecodeError, Field, Reader, Writer};
use std::io::{self, IoSlice};

/// Name of the file.
pub const IDENTITY_NAME: &str = "IDENTITY";
/// Its name while it is written.
const TEMPORARY_NAME: &str = "IDENTITY.tmp";
/// First bytes of the file.
pub const IDENTITY_MAGIC: &[u8; 8] = b"SYNODDIR";
/// Most starts that are kept, the newest. A peer that remembers an older one was away for more starts than that.
pub const STARTS_MAX: usize = 65_536;
/// Longest cluster name, bytes: its length is one byte.
pub const CLUSTER_NAME_BYTES_MAX: usize = 255;
/// Bytes of a start.
const START_BYTES: usize = 16;
/// Longest file that is read.
pub(super) const FILE_BYTES_MAX: u64 = (STARTS_MAX * START_BYTES + 1024) as u64;

/// What a data directory knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node whose directory it is.
    pub node: NodeId,
    /// The name of its cluster.
    pub cluster_name: String,
    /// The life of this memory.
    pub incarnation: Incarnation,
    /// Ties the segments of the log to this directory. Drawn at random and never told to anybody, so that no bytes that
    /// a client sends can look like a unit of this log.
    pub log_id: u64,
    /// Every start, the present one last, ascending by counter; the newest [`STARTS_MAX`].
    pub starts: Vec<Start>,
}

/// Why bytes are refused as an identity.
pub(super) enum IdentityFault {
    Newer(u32),
    Bad(String),
}

impl Identity {
    /// The present start.
    ///
    /// # Panics
    /// If none was made yet; `Storage::open` makes one before it hands out an identity.
    pub fn start(&self) -> Start {
        *self.starts.last().expect("Storage::open notes a start")
    }

    /// Earlier starts.
    pub fn past_starts(&self) -> &[Start] {
        &self.starts[..self.starts.len().saturating_sub(1)]
    }

    /// Notes a new start, with a random token.
    pub(super) fn begin_start(&mut self, token: u64) {
        let counter = self.starts.last().map_or(1, |last| last.counter + 1);
        self.starts.push(Start { counter, token });
        let surplus = self.starts.len().saturating_sub(STARTS_MAX);
        self.starts.drain(..surplus);
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut out = Writer::new(&mut bytes);
        out.slice(IDENTITY_MAGIC);
        out.u32(DISK_FORMAT);
        self.node.put(&mut out);
        self.incarnation.put(&mut out);
        out.u64(self.log_id);
        out.text8(&self.cluster_name);
        out.length32(self.starts.len());
        self.starts.iter().for_each(|start| start.put(&mut out));
        let crc = crc32fast::hash(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    /// Reads the file; `None` if there is none.
    pub(super) fn read<Fs: Files>(files: &Fs) -> Result<Option<Identity>, OpenError> {
        let path = files.path(IDENTITY_NAME);
        let failed = |source| Failure::new("read", path.clone(), source);
        let file = match files.open(IDENTITY_NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error).into()),
        };
        let damage = |what| Damage {
            file: path.clone(),
            offset: 0,
            kind: DamageKind::Identity,
            what,
        };
        let length = file.length().map_err(failed)?;
        if length > FILE_BYTES_MAX {
            return Err(damage(format!("{length} bytes long, at most {FILE_BYTES_MAX} are possible")).into());
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        match Identity::parse(&bytes) {
            Ok((_, identity)) => Ok(Some(identity)),
            Err(IdentityFault::Newer(found)) => Err(OpenError::NewerFormat {
                file: path,
                found,
                supported: DISK_FORMAT,
            }),
            Err(IdentityFault::Bad(what)) => Err(damage(what).into()),
        }
    }

    /// The identity that these bytes are, and their format.
    pub(super) fn parse(bytes: &[u8]) -> Result<(u32, Identity), IdentityFault> {
        let format = format_of(bytes).map_err(IdentityFault::Bad)?;
        // The rest of a newer file may look otherwise, its checksum included.
        if format > DISK_FORMAT {
            return Err(IdentityFault::Newer(format));
        }
        let identity = decode(bytes).map_err(IdentityFault::Bad)?;
        Ok((format, identity))
    }

    /// Writes the file in place of an older one; it is durable then.
    pub(super) fn write<Fs: Files>(&self, files: &Fs) -> Result<(), Failure> {
        let failed = |source| Failure::new("write", files.path(TEMPORARY_NAME), source);
        let mut file = files.create(TEMPORARY_NAME).map_err(failed)?;
        file.write_all_at(&mut [IoSlice::new(&self.encode())], 0)
            .map_err(failed)?;
        file.sync().map_err(failed)?;
        files.rename(TEMPORARY_NAME, IDENTITY_NAME).map_err(failed)?;
        files
            .sync_directory()
            .map_err(|source| Failure::new("sync", files.directory(), source))
    }
}

fn format_of(bytes: &[u8]) -> Result<u32, String> {
    let mut from = Reader::copying(bytes);
    let magic = from
        .slice(IDENTITY_MAGIC.len(), "magic")
        .map_err(|error| error.to_string())?;
    if magic != IDENTITY_MAGIC {
        return Err("it does not begin with the magic of an identity".into());
    }
    from.u32("format").map_err(|error| error.to_string())
}

fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let Some((content, stated)) = bytes.split_last_chunk::<4>() else {
        return Err("too short".into());
    };
    let (stated, computed) = (u32::from_be_bytes(*stated), crc32fast::hash(content));
    if stated != computed {
        return Err(format!("its crc is {computed:08x}, stated is {stated:08x}"));
    }
    decode_content(content).map_err(|error| error.to_string())
}

fn decode_content(content: &[u8]) -> Result<Identity, DecodeError> {
    let mut from = Reader::copying(content);
    from.slice(IDENTITY_MAGIC.len() + 4, "magic and format")?;
    let node = NodeId::take(&mut from, "node")?;
    let incarnation = Incarnation::take(&mut from, "incarnation")?;
    let log_id = from.u64("log id")?;
    let cluster_name = from.text8(CLUSTER_NAME_BYTES_MAX, "cluster name")?;
    let stated = from.u32("starts")? as usize;
    let count = from.items(stated, START_BYTES, "starts")?;
    let starts = (0..count)
        .map(|_| Start::take(&mut from, "start"))
        .collect::<Result<Vec<Start>, DecodeError>>()?;
    from.finish()?;
    if !starts.is_sorted_by(|a, b| a.counter < b.counter) {
        return Err(DecodeError::NotAscending { field: "starts" });
    }
    Ok(Identity {
        node,
        cluster_name,
        incarnation,
        log_id,
        starts,
    })
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimDisk;
    use super::*;

    fn identity() -> Identity {
        let incarnation = Incarnation {
            generation: 1,
            token: 0xabcd,
        };
        let mut identity = Identity {
            node: NodeId(2),
            cluster_name: "synod".into(),
            incarnation,
            log_id: 7,
            starts: Vec::new(),
        };
        identity.begin_start(11);
        identity.begin_start(12);
        identity
    }

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        let disk = SimDisk::new(1);
        assert_eq!(Identity::read(&disk).unwrap(), None);
        identity().write(&disk).unwrap();
        disk.crash();
        let read = Identity::read(&disk).unwrap().unwrap();
        assert_eq!(read, identity());
        assert_eq!(read.start(), Start { counter: 2, token: 12 });
        assert_eq!(read.past_starts(), [Start { counter: 1, token: 11 }]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused_by_name() {
        let disk = SimDisk::new(1);
        identity().write(&disk).unwrap();
        let length = identity().encode().len() as u64;
        for bit in 0..length * 8 {
            let copy = disk.fork();
            assert!(copy.flip_bit(IDENTITY_NAME, bit / 8, (bit % 8) as u8));
            match Identity::read(&copy) {
                Err(OpenError::Damage(damage)) => assert_eq!(damage.file, "sim/IDENTITY", "bit {bit}"),
                Err(OpenError::NewerFormat { .. }) => assert!((64..96).contains(&bit), "bit {bit}"),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
        for end in 0..length {
            let copy = disk.fork();
            copy.open(IDENTITY_NAME).unwrap().truncate(end).unwrap();
            assert!(
                matches!(Identity::read(&copy), Err(OpenError::Damage(_))),
                "cut at {end}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_named_even_if_nothing_else_of_it_is_known() {
        let disk = SimDisk::new(1);
        identity().write(&disk).unwrap();
        disk.overwrite(IDENTITY_NAME, 8, &(DISK_FORMAT + 1).to_be_bytes());
        let error = Identity::read(&disk).unwrap_err().to_string();
        assert!(error.contains("newer than") && error.contains("IDENTITY"), "{error}");
    }

    #[test]
    fn only_the_newest_starts_are_kept() {
        let mut identity = identity();
        for token in 0..STARTS_MAX as u64 {
            identity.begin_start(token);
        }
        assert_eq!(identity.starts.len(), STARTS_MAX);
        assert_eq!(identity.start().counter, STARTS_MAX as u64 + 2);
        assert_eq!(decode(&identity.encode()), Ok(identity));
    }

    #[test]
    fn a_crash_at_any_step_of_a_write_leaves_the_old_identity_or_the_new_one() {
        let mut next = identity();
        next.begin_start(13);
        for step in 1..=5 {
            for seed in 0..20 {
                let disk = SimDisk::new(seed);
                identity().write(&disk).unwrap();
                disk.cut_power_after(step);
                assert!(next.write(&disk).is_err(), "a write is at least 5 operations");
                disk.crash();
                let read = Identity::read(&disk).unwrap().unwrap();
                assert!(read == identity() || read == next, "step {step} seed {seed}: {read:?}");
            }
        }
    }
}
