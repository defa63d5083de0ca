//! The backup's file: what was put in comes out, and whatever happens to the file on the way is seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::collections::BTreeMap;

use windlass_store::{
    BackupError, BackupHead, BackupRead, BackupWriter, Digest, Exported, Seq, add_folder, read_backup,
};

type Entries = BTreeMap<String, Vec<u8>>;

fn head() -> BackupHead {
    let exported = Exported { seq: Seq(7), records: 2, sha256: String::new() };
    BackupHead::new("0.1.0", 1_700_000_000_000, &exported, "k".into())
}

fn written() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let digest = Digest::of(b"content").to_string();
    let shard = folder.path().join(&digest[..2]);
    std::fs::create_dir(&shard).unwrap();
    std::fs::write(shard.join(&digest), b"content").unwrap();
    std::fs::write(shard.join("left.partial"), b"half").unwrap();
    let mut writer = BackupWriter::new(Vec::new(), &head()).unwrap();
    writer.add("records.jsonl", 5, &mut &b"lines"[..]).unwrap();
    let name = |path: &std::path::Path| {
        let name = path.file_name()?.to_str()?;
        name.parse::<Digest>().ok().map(|_| format!("blobs/{name}"))
    };
    add_folder(&mut writer, folder.path(), &name).unwrap();
    add_folder(&mut writer, &folder.path().join("there-is-none"), &name).unwrap();
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<(BackupRead, Entries), BackupError> {
    let mut entries = Entries::new();
    let summary = read_backup(bytes, &mut |name, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        entries.insert(name.to_owned(), bytes);
        Ok(())
    })?;
    Ok((summary, entries))
}

#[test]
fn what_was_put_in_comes_out() {
    let (summary, entries) = read(&written()).unwrap();
    assert_eq!((summary.head, summary.files), (head(), 2));
    let blob = format!("blobs/{}", Digest::of(b"content"));
    assert_eq!(entries, Entries::from([("records.jsonl".into(), b"lines".into()), (blob, b"content".into())]));
}

#[test]
fn every_cut_and_every_changed_byte_is_seen() {
    let good = written();
    let (_, entries) = read(&good).unwrap();
    // Behind the last entry is only the end mark of the format, zeros.
    let end = good.iter().rposition(|&b| b != 0).unwrap();
    for cut in (0..=end).step_by(7) {
        assert!(read(&good[..cut]).is_err(), "cut at {cut}");
    }
    let mut harmless = 0;
    for place in 0..=end {
        let mut bytes = good.clone();
        bytes[place] ^= 0x41;
        match read(&bytes) {
            Err(_) => {}
            // The rest of a block behind an entry means nothing.
            Ok((_, same)) => {
                assert_eq!(same, entries, "byte {place}");
                harmless += 1;
            }
        }
    }
    assert!(harmless < end / 2, "{harmless} of {end}");
}

#[test]
fn what_no_backup_holds_is_refused() {
    let refused = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert_eq!(refused(b""), "this is no backup: it does not begin with windlass-backup.json");
    assert_eq!(refused(&[b'x'; 2000]), "this is no backup: it does not begin with windlass-backup.json");

    let later = BackupHead { windlass_backup: 2, ..head() };
    let bytes = BackupWriter::new(Vec::new(), &later).unwrap().finish().unwrap();
    assert!(refused(&bytes).starts_with("the backup has format 2 and this release knows formats up to 1"));

    for name in ["../evil", "a/b/c", ".hidden", "blobs/short", "a b"] {
        let mut writer = BackupWriter::new(Vec::new(), &head()).unwrap();
        if writer.add(name, 1, &mut &b"x"[..]).is_err() {
            continue;
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(
            refused(&bytes),
            "the backup is damaged: an entry has a name that no backup has; use another one",
            "{name}"
        );
    }

    let wrong = format!("blobs/{}", Digest::of(b"other"));
    let mut writer = BackupWriter::new(Vec::new(), &head()).unwrap();
    writer.add(&wrong, 1, &mut &b"x"[..]).unwrap();
    assert!(refused(&writer.finish().unwrap()).contains(&format!("the content of {wrong} has the digest")));

    let mut writer = BackupWriter::new(Vec::new(), &head()).unwrap();
    let short = writer.add("records.jsonl", 3, &mut &b"x"[..]).unwrap_err();
    assert_eq!(short.to_string(), "write the backup: records.jsonl has 1 bytes instead of 3");
}
