//! Archives that mean harm, or were made by broken tools: what each is refused for, in words.
//!
//! Every case is a few bytes made here. The snapshot is the contract: one line a case, naming the
//! entry. The accepted cases beside them show that the rules do not refuse honest packages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod tar_cases;
mod zip_cases;

use std::io::Cursor;
use std::time::{Duration, Instant};

use common::{ZipEntry, gzip, pax, read_tar, tar, tar_file, tar_header, tar_link, zip};
use proptest::prelude::*;
use tar::EntryType;
use tar_cases::{folder, gzip_cases, hardlink, long_name, tar_damage, tar_links_and_kinds, tar_paths};
use windlass_packages::archive::{ArchiveError, Inspection, Limits, StopFlag, inspect};
use windlass_packages::name::Format;
use zip_cases::{nupkg_cases, zip_cases};

fn limits() -> Limits {
    Limits {
        packed_bytes: 1 << 20,
        unpacked_bytes: 8 << 20,
        ratio: 100,
        ratio_floor: 1 << 20,
        entries: 50,
        depth: 8,
        path_bytes: 300,
        listing_bytes: 3000,
    }
}

fn look(format: Format, bytes: &[u8]) -> Result<Inspection, ArchiveError> {
    inspect(Cursor::new(bytes), format, &limits(), &StopFlag::default(), &mut std::io::sink())
}

#[test]
fn every_hostile_archive_is_refused_in_words_and_in_time() {
    let corpus = [
        (Format::Tar, tar_paths()),
        (Format::Tar, tar_links_and_kinds()),
        (Format::Tar, tar_damage()),
        (Format::TarGz, gzip_cases()),
        (Format::Zip, zip_cases()),
        (Format::Nupkg, nupkg_cases()),
    ];
    let mut lines = Vec::new();
    for (format, cases) in corpus {
        for (case, bytes) in cases {
            let start = Instant::now();
            let verdict = look(format, &bytes);
            assert!(start.elapsed() < Duration::from_secs(2), "{case}: {:?}", start.elapsed());
            let error = verdict.expect_err(case);
            lines.push(format!("{case}\n    {error}\n    fix: {}", error.fix()));
        }
    }
    assert!(lines.len() >= 40, "{} cases", lines.len());
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn honest_archives_are_accepted() {
    let long = format!("{}/file", "folder-with-a-long-name/".repeat(6));
    let good = tar(&[tar_file("a", b"hello")]);
    let cases = [
        ("empty", Format::Tar, tar(&[]), 0),
        ("as tar c . makes it", Format::Tar, tar(&[folder("./"), tar_file("./a", b"1")]), 2),
        ("folder twice", Format::Tar, tar(&[folder("d/"), folder("d/"), tar_file("d/a", b"")]), 3),
        (
            "links that stay",
            Format::Tar,
            tar(&[
                tar_file("releases/1/app", b"x"),
                tar_link("current", "releases/1"),
                tar_link("releases/1/self", "../../current/./app"),
                tar_link("dangling", "made/later"),
                hardlink("copy", "releases/1/app"),
            ]),
            5,
        ),
        ("GNU long name", Format::Tar, tar(&[long_name(EntryType::GNULongName, &long), tar_file("short", b"x")]), 1),
        (
            "pax long name and size",
            Format::Tar,
            tar(&[
                pax(EntryType::XHeader, &[("path", &long), ("size", "1"), ("mtime", "1.5")]),
                tar_file("short", b"x"),
            ]),
            1,
        ),
        (
            "as git archive makes it",
            Format::Tar,
            tar(&[pax(EntryType::XGlobalHeader, &[("comment", "c0ffee")]), tar_file("a", b"x")]),
            1,
        ),
        ("padded to a whole record", Format::Tar, [good.clone(), vec![0; 8192]].concat(), 1),
        ("two gzip members", Format::TarGz, { [gzip(&good[..700]), gzip(&good[700..])].concat() }, 1),
        ("small and very compressible", Format::Tgz, { gzip(&tar(&[tar_file("zeros", &vec![0; 900_000])])) }, 1),
        ("zip", Format::Zip, zip(&[ZipEntry::file("d/ä b.txt", b"1")]), 1),
        ("empty zip", Format::Zip, zip(&[]), 0),
        (
            "stored zip entry",
            Format::Zip,
            {
                let stored = ZipEntry { method: 0, data: b"hello".to_vec(), ..ZipEntry::file("a", b"hello") };
                zip(&[stored])
            },
            1,
        ),
    ];
    for (case, format, bytes, entries) in cases {
        let found = look(format, &bytes).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(found.entries, entries, "{case}");
        assert_eq!(found.warnings, [""; 0], "{case}");
    }
}

#[test]
fn what_only_some_machines_mind_is_a_warning() {
    let mut suid = tar_header("bin/su", EntryType::Regular, 0, "");
    let mut header = tar::Header::from_byte_slice(&suid).clone();
    header.set_mode(0o4755);
    header.set_cksum();
    suid.copy_from_slice(header.as_bytes());
    let mut entries = vec![
        tar_file("Readme", b"1"),
        tar_file("README", b"2"),
        tar_file("aux.txt", b"3"),
        tar_file("lpt1", b"3"),
        tar_file("what?", b"3"),
        tar_file("dot.", b"3"),
        suid,
    ];
    entries.extend((0..20).map(|number| tar_file(&format!("{number}:"), b"")));
    let found = look(Format::Tar, &tar(&entries)).unwrap();
    insta::assert_snapshot!(found.warnings.join("\n"));
}

#[test]
fn an_inspection_stops_when_asked() {
    let stop = StopFlag::default();
    stop.stop();
    let bytes = tar(&[tar_file("a", b"x")]);
    let verdict = inspect(Cursor::new(bytes), Format::Tar, &limits(), &stop, &mut std::io::sink());
    assert!(matches!(verdict, Err(ArchiveError::Stopped)));
}

#[test]
fn tar_passes_unchanged_and_zip_becomes_tar() {
    let bytes = tar(&[tar_file("a", b"hello"), tar_link("b", "a")]);
    let mut plain = Vec::new();
    let found = inspect(Cursor::new(&bytes), Format::Tar, &limits(), &StopFlag::default(), &mut plain);
    assert_eq!(plain, bytes);
    assert_eq!(found.unwrap().plain.size, bytes.len() as u64);

    let long = "folder/".repeat(20) + "file";
    let wide = Limits { depth: 30, ..limits() };
    let bytes = zip(&[ZipEntry::file(&long, b"deep"), ZipEntry::with_mode("x", 0o100_700, b"")]);
    let mut plain = Vec::new();
    inspect(Cursor::new(bytes), Format::Zip, &wide, &StopFlag::default(), &mut plain).unwrap();
    let read = read_tar(&plain);
    assert_eq!(read[0], (long, "file", 0o644, "deep".to_owned()));
    assert_eq!(read[1], ("x".to_owned(), "file", 0o700, String::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// One damaged byte, or a cut, gives a verdict: never a panic, never a hang.
    #[test]
    fn damage_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>()) {
        let sound = [
            (Format::Tar, tar(&[
                pax(EntryType::XHeader, &[("path", "p")]),
                tar_file("a", b"hello"),
                tar_link("b", "a"),
            ])),
            (Format::TarGz, gzip(&tar(&[tar_file("a", b"hello")]))),
            (Format::Zip, zip(&[ZipEntry::file("a", b"hello"), ZipEntry::with_mode("b", 0o120_777, b"a")])),
            (Format::Nupkg, zip(&[ZipEntry::file("a%20b%", b"hello")])),
        ];
        for (format, mut bytes) in sound {
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = value;
            }
            let _ = look(format, &bytes);
        }
    }
}
