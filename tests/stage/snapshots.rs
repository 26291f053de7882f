//! Snapshots on the stage: taken whole in one command, with the log behind them gone; fetched piece by piece as the script
//! delivers them.

use super::{Stage, words};
use synod::kv::State;
use synod::machine::{Effect, Input, Kept, SnapshotView};
use synod::paxos::{NodeId, Slot};
use synod::storage::sim::SimDisk;
use synod::storage::snapshot::{self, Header, Loading, SnapshotWriter, snapshot_name, temporary_name};
use synod::storage::{File, Files, OpenError};

impl Stage {
    /// Takes a snapshot, and removes all that it stands for from the log.
    pub(super) fn take_snapshot(&mut self, id: NodeId) {
        let node = self.node(id);
        let machine = node.machine.as_mut().expect("a node that runs");
        let mut effects = Vec::new();
        let summary = machine.begin_snapshot(&mut effects);
        let header = Header {
            cluster_id: machine.cluster_id(),
            summary,
            config: 1,
            members: Vec::new(),
        };
        let mut writer = SnapshotWriter::begin(&node.files, &header).expect("the stage's disk works");
        while machine
            .next_of_snapshot(writer.room(), &mut |item| writer.add(item))
            .expect("memory is well")
        {
            writer.write_block().expect("the stage's disk works");
        }
        writer.finish().expect("the stage's disk works");
        snapshot::publish(&node.files, summary.slot).expect("the stage's disk works");
        let wrote = machine.write_checkpoint(1, summary.slot, &mut effects);
        assert!(wrote, "{id}: its acceptor is up");
        self.say(format!(
            "{id} takes a snapshot, slot={}, and truncates its log",
            summary.slot
        ));
        self.carry_out(id, effects);
        self.end_turn(id);
        self.node(id).disk.truncate(summary.slot);
        self.tell_newest(id);
    }

    /// Flips a bit in the middle of a node's newest snapshot.
    pub(super) fn damage_snapshot(&mut self, id: NodeId) {
        let (files, newest) = (&self.nodes[&id].files, newest(&self.nodes[&id].files));
        let name = snapshot_name(newest.expect("there is a snapshot"));
        let length = files.contents(&name).map_or(0, |bytes| bytes.len() as u64);
        assert!(files.flip_bit(&name, length / 2, 0));
    }

    /// What a start loads.
    pub(super) fn restored(&self, id: NodeId) -> Option<State> {
        let files = &self.nodes[&id].files;
        let slot = newest(files)?;
        Some(load(files, &snapshot_name(slot)).expect("a script damages only what it does not start from"))
    }

    /// The machine is told which snapshots there are.
    pub(super) fn tell_newest(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(slot) = newest(&node.files) else { return };
        let loading = Loading::begin(&node.files, &snapshot_name(slot), State::new());
        let loading = loading.expect("the header is whole");
        let kept = Kept {
            slot,
            bytes: loading.reader().length(),
            content: loading.reader().header().summary.content,
            at: None,
        };
        let view = SnapshotView {
            kept: vec![kept],
            ..SnapshotView::default()
        };
        if let Some(machine) = &mut node.machine {
            machine.tell_snapshots(view);
        }
    }

    /// Effects about the file of a snapshot.
    pub(super) fn carry_out_transfer(&mut self, id: NodeId, effect: Effect, first_line: usize) {
        match effect {
            Effect::SendTransfer { to, transfer } => {
                let kind = transfer.name();
                self.send(id, to, kind, Input::Transfer { from: id, transfer }, first_line);
            }
            Effect::ReadChunk {
                to,
                slot,
                offset,
                length,
            } => {
                let contents = self.node(id).files.contents(&snapshot_name(slot));
                let end = (offset + u64::from(length)) as usize;
                let bytes = contents.and_then(|all| Some(all.get(offset as usize..end)?.to_vec().into()));
                let read = Input::ChunkRead {
                    to,
                    slot,
                    offset,
                    bytes,
                };
                self.next_inputs.push_back((id, read));
            }
            Effect::BeginInstall { slot, .. } => {
                let made = self.node(id).files.create(&temporary_name(slot));
                made.expect("the stage's disk works");
            }
            Effect::KeepChunk { slot, offset, bytes } => {
                let mut file = self.node(id).files.open(&temporary_name(slot)).expect("it was made");
                let mut pieces = [std::io::IoSlice::new(&bytes)];
                file.write_all_at(&mut pieces, offset).expect("the stage's disk works");
            }
            Effect::LoadInstall { slot, .. } => self.install(id, slot),
            Effect::DropInstall => self.say(format!("{id} throws away what it fetched")),
            other => unreachable!("{other:?} is not about a snapshot"),
        }
    }

    /// All pieces are here.
    fn install(&mut self, id: NodeId, slot: Slot) {
        let node = self.node(id);
        match load(&node.files, &temporary_name(slot)) {
            Ok(state) => {
                snapshot::publish(&node.files, slot).expect("the stage's disk works");
                let (now, mut effects) = (node.now, Vec::new());
                let machine = node.machine.as_mut().expect("it runs");
                machine.install(now, state, &mut effects);
                node.shown_applied = slot;
                self.tell_newest(id);
                self.show_applied(id);
                self.carry_out(id, effects);
                self.node(id).disk.truncate(slot);
                self.sync(id);
            }
            Err(OpenError::Damage(damage)) => {
                let failed = Input::InstallFailed {
                    damaged: Some((damage.offset, damage.offset + 1)),
                    reason: words::of_damage(&damage),
                };
                self.next_inputs.push_back((id, failed));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn newest(files: &SimDisk) -> Option<Slot> {
    snapshot::list(files).expect("the stage's disk works").first().copied()
}

fn load(files: &SimDisk, name: &str) -> Result<State, OpenError> {
    let loading = Loading::begin(files, name, State::new())?;
    loading.finish().map(|(_, state)| state)
}
