//! Looking over a folder that no server uses: everything is read, every fault is named, and the look goes on.
//!
//! The journal's segments and the exports are read one by one, so that one fault does not hide the next. Of a damaged
//! journal the rest is read, and what the damage took is named as far as the index knows. What sound ones say together is then compared with the index record by record. The index is brought up to date first, as every
//! opening does; nothing else is changed. For each record a number and a checksum are held in memory, not its value.

use std::collections::HashMap;
use std::path::Path;

use super::folder::{Folder, Trust, list_exports};
use super::index::Index;
use super::recovery::{History, replay, set_trust};
use super::{EmbeddedOptions, OpenError, salvage, this_boot};
use crate::batch::Op;
use crate::error::describe_key;
use crate::journal::{Segment, list_segments};
use crate::record::{Record, Seq, TableName};
use crate::scan::Scan;
use crate::transfer::ExportReader;

/// Faults that are kept in words; further ones are counted.
const KEPT: usize = 1000;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which record (`table/key`) or file.
    pub place: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

/// What a look at a folder found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The last commit.
    pub last: Seq,
    /// Records in the store.
    pub records: u64,
    /// Journal segments and exports that were read.
    pub files: u64,
    /// Damage, the first thousand faults of it.
    pub damage: Vec<Finding>,
    /// Faults beyond those.
    pub more: u64,
    /// What is worth knowing but repairs itself at the next start.
    pub notes: Vec<Finding>,
}

impl Checked {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    /// Adds damage.
    pub fn damaged(&mut self, place: impl ToString, problem: impl ToString) {
        if self.damage.len() < KEPT {
            self.damage.push(Finding { place: place.to_string(), problem: problem.to_string() });
        } else {
            self.more += 1;
        }
    }

    /// Adds what is worth knowing.
    pub fn note(&mut self, place: impl ToString, problem: impl ToString) {
        self.notes.push(Finding { place: place.to_string(), problem: problem.to_string() });
    }
}

/// A record by its table and key: the commit that wrote it and a checksum of its value.
type Truth = HashMap<(TableName, Vec<u8>), (Seq, u32)>;

/// Reads everything in the folder of a store that is not open.
///
/// # Errors
/// If there is no store, it is in use, or its folder cannot be read at all. Damage is no error but in the result.
pub fn check(dir: &Path, options: &EmbeddedOptions) -> Result<Checked, OpenError> {
    if !dir.join("journal").is_dir() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "it holds no store");
        return Err(OpenError::Io { what: "check", path: dir.to_owned(), source });
    }
    let folder = Folder::open(dir)?;
    let boot = options.boot.clone().unwrap_or_else(this_boot);
    let mut checked = Checked::default();
    check_files(&folder, &mut checked)?;
    if !checked.is_sound() {
        check_rest(&folder, options, &boot, &mut checked)?;
        return Ok(checked);
    }
    let history = match History::read(&folder) {
        Ok(history) => history,
        Err(e) => {
            checked.damaged(folder.journal().display(), e);
            return Ok(checked);
        }
    };
    checked.last = history.last_seq();
    let truth = truth(&history)?;
    checked.records = truth.len() as u64;
    check_index(&folder, options, &boot, &history, truth, &mut checked)?;
    Ok(checked)
}

/// What a damaged journal still tells: which commits are lost, and, as far as the index knows, of which records.
fn check_rest(folder: &Folder, options: &EmbeddedOptions, boot: &str, checked: &mut Checked) -> Result<(), OpenError> {
    let salvaged = salvage::read(folder)?;
    checked.last = salvaged.last;
    checked.records = salvaged.store.count();
    for (first, last) in &salvaged.lost {
        let what = if first == last { format!("commit {first}") } else { format!("commits {first} to {last}") };
        checked.damaged(folder.journal().display(), format!("{what} cannot be read; the rest can"));
    }
    if salvaged.cut {
        checked.note(folder.journal().display(), "there is more in it than is looked at while it is damaged");
    }
    let unknown = "it cannot tell which records the damage took";
    let Trust::Good(name) = folder.trust(boot) else {
        checked.note(folder.indexes().display(), unknown);
        return Ok(());
    };
    let path = folder.index(&name);
    set_trust(folder, boot, false, &name)?;
    let named = Index::open(&path, options.cache_bytes).and_then(|index| {
        name_lost(&index, &salvaged.lost, checked)?;
        index.sync()
    });
    match named {
        Ok(()) => set_trust(folder, boot, true, &name),
        Err(e) => {
            checked.note(path.display(), format!("{e}; {unknown}"));
            folder.distrust().map_err(|source| OpenError::Io { what: "distrust", path, source })
        }
    }
}

/// Names every record whose last change is in a commit that is lost.
fn name_lost(index: &Index, lost: &[(Seq, Seq)], checked: &mut Checked) -> Result<(), super::IndexError> {
    for table in index.tables()? {
        let mut scan = Scan::table(&table);
        loop {
            let page = index.scan(&scan)?;
            for record in &page.records {
                if lost.iter().any(|(first, last)| (*first..=*last).contains(&record.version)) {
                    let place = format!("{table}/{}", describe_key(&record.key));
                    let problem = format!("its last change is in commit {}, which cannot be read", record.version);
                    checked.damaged(place, problem);
                }
            }
            match page.records.last() {
                Some(last) if page.more => scan = scan.after(last.key.clone()),
                _ => break,
            }
        }
    }
    Ok(())
}

fn check_files(folder: &Folder, checked: &mut Checked) -> Result<(), OpenError> {
    let segments = list_segments(&folder.journal())?;
    for (place, (_, path)) in segments.iter().enumerate() {
        checked.files += 1;
        if let Err(e) = Segment::read(path, place + 1 == segments.len()) {
            checked.damaged(path.display(), e);
        }
    }
    let dir = folder.exports();
    for (_, path) in list_exports(&dir).map_err(|source| OpenError::Io { what: "list", path: dir, source })? {
        checked.files += 1;
        if let Err(e) = ExportReader::open(&path).and_then(ExportReader::verify) {
            checked.damaged(path.display(), e);
        }
    }
    Ok(())
}

/// What the last export and the journal say together.
fn truth(history: &History) -> Result<Truth, OpenError> {
    let mut truth = Truth::new();
    let mut after = Seq(0);
    if let Some(path) = &history.export {
        let reader = ExportReader::open(path)?;
        after = reader.seq();
        for record in reader {
            let record = record?;
            truth.insert((record.table, record.key.to_vec()), (record.version, crc32c::crc32c(&record.value)));
        }
    }
    for (path, _) in &history.segments {
        for commit in history.segment(path)?.commits(after) {
            let (seq, ops) = commit?;
            for op in ops {
                match op {
                    Op::Put { table, key, value } => {
                        truth.insert((table, key.to_vec()), (seq, crc32c::crc32c(&value)));
                    }
                    Op::Delete { table, key } => {
                        truth.remove(&(table, key.to_vec()));
                    }
                }
            }
        }
    }
    Ok(truth)
}

fn check_index(
    folder: &Folder,
    options: &EmbeddedOptions,
    boot: &str,
    history: &History,
    mut truth: Truth,
    checked: &mut Checked,
) -> Result<(), OpenError> {
    let anew = "it is built anew from the journal at the next start";
    let name = match folder.trust(boot) {
        Trust::Good(name) => name,
        Trust::MachineRestarted => {
            checked.note(folder.indexes().display(), format!("the machine restarted while it was open; {anew}"));
            return Ok(());
        }
        Trust::Unmarked => {
            checked.note(folder.indexes().display(), format!("it bears no mark that it can be trusted; {anew}"));
            return Ok(());
        }
    };
    let path = folder.index(&name);
    set_trust(folder, boot, false, &name)?;
    let opened = Index::open(&path, options.cache_bytes).and_then(|index| Ok((index.applied()?, index)));
    match opened {
        Err(e) => checked.note(path.display(), format!("{e}; {anew}")),
        Ok((applied, _)) if applied < history.base => {
            checked.note(path.display(), format!("it ends at commit {applied}, before the journal begins; {anew}"));
        }
        Ok((applied, index)) => {
            if applied > history.last_seq() {
                let last = history.last_seq();
                let fix = format!("put the journal's files back from a backup; its last commit is {last}");
                checked.damaged(folder.journal().display(), format!("the index has seen commit {applied}: {fix}"));
            } else {
                replay(&index, history, applied)?;
                if let Err(e) = compare(&index, &mut truth, checked) {
                    checked.note(path.display(), format!("{e}; {anew}"));
                    // As after any error of the index: the next start does not believe it.
                    folder.distrust().map_err(|source| OpenError::Io { what: "distrust", path, source })?;
                    return Ok(());
                }
            }
            index.sync()?;
            set_trust(folder, boot, true, &name)?;
        }
    }
    Ok(())
}

/// Takes every record of the index out of the truth; what differs on either side is damage.
fn compare(index: &Index, truth: &mut Truth, checked: &mut Checked) -> Result<(), super::IndexError> {
    let fix = "have the index built anew: remove the folder 'index' and the file 'index.trust' of the store";
    for table in index.tables()? {
        let mut scan = Scan::table(&table);
        loop {
            let page = index.scan(&scan)?;
            for Record { key, value, version } in &page.records {
                let place = || format!("{table}/{}", describe_key(key));
                match truth.remove(&(table.clone(), key.to_vec())) {
                    None => checked.damaged(place(), format!("the index shows it and the journal does not; {fix}")),
                    Some(known) if known != (*version, crc32c::crc32c(value)) => {
                        checked.damaged(place(), format!("the index shows another value than the journal; {fix}"));
                    }
                    Some(_) => {}
                }
            }
            match page.records.last() {
                Some(last) if page.more => scan = scan.after(last.key.clone()),
                _ => break,
            }
        }
    }
    let mut missing: Vec<_> = truth.drain().map(|(place, _)| place).collect();
    missing.sort_unstable();
    for (table, key) in missing {
        let place = format!("{table}/{}", describe_key(&key));
        checked.damaged(place, format!("the journal holds it and the index does not show it; {fix}"));
    }
    Ok(())
}
