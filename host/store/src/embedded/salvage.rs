//! What can still be read of a damaged folder: for looking at, never for going on with.
//!
//! Going on would silently lose what was acknowledged. But whoever has to decide what to do wants to know what the damage
//! took and whether the rest is sound.

use std::path::Path;

use super::folder::{Folder, list_exports};
use super::{EmbeddedOptions, OpenError};
use crate::journal::{list_segments, salvaged_frames};
use crate::memory::MemoryStore;
use crate::record::Seq;
use crate::transfer::ExportReader;

/// Bytes of records that are held at most; what comes later is not looked at.
const MAX_BYTES: usize = 1 << 30;

/// The records that can be read, and the commits that cannot.
#[derive(Debug)]
pub struct Salvaged {
    /// Every record as the readable commits leave it.
    pub store: MemoryStore,
    /// The last commit that can be read.
    pub last: Seq,
    /// Runs of commits that are lost, each with its first and last.
    pub lost: Vec<(Seq, Seq)>,
    /// There was more than is held.
    pub cut: bool,
}

/// Reads what can be read in the folder of a store that is not open.
///
/// # Errors
/// If it is in use, or its folder cannot be read at all.
pub fn salvage(dir: &Path, _options: &EmbeddedOptions) -> Result<Salvaged, OpenError> {
    read(&Folder::open(dir)?)
}

pub(super) fn read(folder: &Folder) -> Result<Salvaged, OpenError> {
    let mut salvaged = Salvaged { store: MemoryStore::new(), last: Seq(0), lost: Vec::new(), cut: false };
    let mut held = 0;
    let dir = folder.exports();
    let exports = list_exports(&dir).map_err(|source| OpenError::Io { what: "list", path: dir, source })?;
    // The newest that is whole; older ones are as good while the journal reaches back to them.
    let whole = |path: &std::path::PathBuf| ExportReader::open(path).and_then(ExportReader::verify).is_ok();
    if let Some((seq, path)) = exports.iter().rev().find(|(_, path)| whole(path)) {
        for record in ExportReader::open(path)? {
            let record = record?;
            held += record.key.len() + record.value.len();
            salvaged.store.put_back(record.table, record.key, record.version, record.value);
        }
        salvaged.last = *seq;
    }
    for (first, path) in list_segments(&folder.journal())? {
        // One that cannot be read at all is a gap up to the next.
        let Ok(commits) = salvaged_frames(&path) else { continue };
        if salvaged.last == Seq(0) && salvaged.lost.is_empty() {
            salvaged.last = Seq(first.0.saturating_sub(1));
        }
        for (seq, ops) in commits {
            if seq <= salvaged.last {
                continue;
            }
            if seq.0 > salvaged.last.0 + 1 {
                salvaged.lost.push((Seq(salvaged.last.0 + 1), Seq(seq.0 - 1)));
            }
            salvaged.last = seq;
            held += ops.iter().map(crate::batch::Op::bytes).sum::<usize>();
            if held > MAX_BYTES {
                salvaged.cut = true;
                return Ok(salvaged);
            }
            salvaged.store.replay(seq, &ops);
        }
    }
    Ok(salvaged)
}
