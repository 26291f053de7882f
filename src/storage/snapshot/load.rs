//! From a snapshot's file to the state, one block at a time, so that a node can do so between its turns.

use super::super::error::OpenError;
use super::super::files::{File, Files};
use super::{Header, SnapshotReader};
use crate::kv::State;
use crate::kv::snapshot::Loader;
use crate::wire::state::KEY_ITEM_BYTES_MIN;

/// A snapshot that is being loaded.
#[derive(Debug)]
pub struct Loading<F> {
    reader: SnapshotReader<F>,
    loader: Loader,
}

impl<F: File> Loading<F> {
    /// Opens the file of that name; `empty` becomes what it holds ([`Loader::new`]).
    ///
    /// # Errors
    /// As [`SnapshotReader::open`].
    pub fn begin<Fs: Files<File = F>>(files: &Fs, name: &str, empty: State) -> Result<Loading<F>, OpenError> {
        let reader = SnapshotReader::open(files, name)?;
        let summary = reader.header().summary;
        // Whatever the header says: no more than the file can hold.
        let keys = summary.keys.min(reader.length() / KEY_ITEM_BYTES_MIN as u64);
        let loader = Loader::new(summary, empty).expecting(keys as usize);
        Ok(Loading { reader, loader })
    }

    /// The file under way.
    pub fn reader(&self) -> &SnapshotReader<F> {
        &self.reader
    }

    /// Loads the next block; the state behind the last, when all of it is what was written. Not to be called again then.
    ///
    /// # Errors
    /// [`OpenError::Damage`], [`OpenError::Failed`]: nothing of the state may be used.
    pub fn step(&mut self) -> Result<Option<State>, OpenError> {
        let begin = self.reader.at();
        let loader = &mut self.loader;
        let loaded = match self.reader.next_block()? {
            Some(block) => block
                .for_each(|item| loader.add(item).map_err(|error| error.to_string()))
                .map(|()| None),
            None => {
                let used = Loader::new(*loader.summary(), State::new());
                let loader = std::mem::replace(loader, used);
                loader.finish().map(Some).map_err(|error| error.to_string())
            }
        };
        loaded.map_err(|what| self.reader.damage(begin, what))
    }

    /// Loads all that is left.
    ///
    /// # Errors
    /// As [`Loading::step`].
    pub fn finish(mut self) -> Result<(Header, State), OpenError> {
        loop {
            if let Some(state) = self.step()? {
                return Ok((self.reader.header().clone(), state));
            }
        }
    }
}
