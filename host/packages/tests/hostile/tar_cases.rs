//! Hostile tar archives, each a few blocks made by hand.

use tar::EntryType;

use crate::common::{gzip, pax, tar, tar_entry, tar_file, tar_header, tar_link};

/// A hard link.
pub fn hardlink(path: &str, target: &str) -> Vec<u8> {
    tar_entry(path, EntryType::Link, target, b"")
}

/// A folder, listed.
pub fn folder(path: &str) -> Vec<u8> {
    tar_entry(path, EntryType::Directory, "", b"")
}

/// A GNU header that announces a long name or link.
pub fn long_name(kind: EntryType, name: &str) -> Vec<u8> {
    tar_entry("././@LongLink", kind, "", format!("{name}\0").as_bytes())
}

/// Tar archives that are refused for an unsafe path.
pub fn tar_paths() -> Vec<(&'static str, Vec<u8>)> {
    let long = "a/".repeat(200) + "x";
    vec![
        ("absolute path", tar(&[tar_file("/etc/cron.d/evil", b"x")])),
        ("parent folder", tar(&[tar_file("../evil", b"x")])),
        ("parent folder inside", tar(&[tar_file("app/../../evil", b"x")])),
        ("parent folder that comes back", tar(&[tar_file("app/../app/a", b"x")])),
        ("parent folder at the end", tar(&[folder("app/..")])),
        ("drive letter", tar(&[tar_file("C:evil", b"x")])),
        ("drive letter and slash", tar(&[tar_file("c:/windows/evil", b"x")])),
        ("backslash", tar(&[tar_file("app\\..\\..\\evil", b"x")])),
        ("network path", tar(&[tar_file("\\\\server\\share", b"x")])),
        ("newline", tar(&[tar_file("a\nroot::0:0", b"x")])),
        ("escape sequence", tar(&[tar_file("a\u{1b}[2Jb", b"x")])),
        ("not UTF-8", {
            let mut header = tar::Header::from_byte_slice(&tar_file("bad", b"")).clone();
            header.as_old_mut().name[..4].copy_from_slice(b"b\xffd\n");
            header.set_cksum();
            tar(&[header.as_bytes().to_vec()])
        }),
        (
            "NUL in a pax path",
            tar(&[pax(EntryType::XHeader, &[("path", "safe\0/../../evil")]), tar_file("safe", b"x")]),
        ),
        (
            "parent folder in a pax path",
            tar(&[pax(EntryType::XHeader, &[("path", "../evil")]), tar_file("safe", b"x")]),
        ),
        (
            "parent folder in a GNU long name",
            tar(&[long_name(EntryType::GNULongName, "../evil"), tar_file("safe", b"x")]),
        ),
        (
            "two announced names",
            tar(&[
                long_name(EntryType::GNULongName, "one"),
                pax(EntryType::XHeader, &[("path", "two")]),
                tar_file("safe", b"x"),
            ]),
        ),
        ("global path", tar(&[pax(EntryType::XGlobalHeader, &[("path", "../evil")]), tar_file("safe", b"x")])),
        ("too deep", tar(&[tar_file("1/2/3/4/5/6/7/8/9", b"x")])),
        ("path too long", tar(&[long_name(EntryType::GNULongName, &long), tar_file("x", b"x")])),
        ("name too long", tar(&[long_name(EntryType::GNULongName, &"n".repeat(260)), tar_file("x", b"x")])),
        ("empty path", tar(&[tar_file("", b"x")])),
        ("root as a file", tar(&[tar_file(".", b"")])),
        ("root as a link", tar(&[tar_link(".", "etc")])),
    ]
}

/// Tar archives that are refused for their links, kinds or clashes.
pub fn tar_links_and_kinds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("link to an absolute path", tar(&[tar_link("a", "/etc/passwd")])),
        ("link out", tar(&[tar_link("app/a", "../../etc")])),
        ("link out by its own folder", tar(&[tar_link("a", "..")])),
        ("link with a backslash", tar(&[tar_link("a", "..\\..\\etc")])),
        ("link with a drive", tar(&[tar_link("a", "C:/windows")])),
        ("link to nothing", tar(&[tar_link("a", "")])),
        ("file through a link", tar(&[tar_link("a", "b"), tar_file("a/evil", b"x")])),
        ("link through a link", tar(&[tar_link("a", "b"), tar_link("a/c", "d")])),
        ("folder through a link", tar(&[tar_link("a", "b"), folder("a/c/")])),
        ("link out by way of a link", tar(&[folder("d/"), tar_link("d/up", ".."), tar_link("evil", "d/up/../etc")])),
        (
            "link out by way of a later link",
            tar(&[tar_link("evil", "d/up/../etc"), folder("d/"), tar_link("d/up", "..")]),
        ),
        ("link out by way of a missing folder", tar(&[tar_link("a", "gone/../../etc")])),
        ("link in circles", tar(&[tar_link("a", "b"), tar_link("b", "a")])),
        ("hard link out", tar(&[hardlink("a", "../etc/shadow")])),
        ("hard link to an absolute path", tar(&[hardlink("a", "/etc/shadow")])),
        ("hard link to a link", tar(&[tar_link("a", "b"), hardlink("c", "a")])),
        ("hard link through a link", tar(&[tar_link("a", "b"), hardlink("c", "a/x")])),
        ("hard link to a later file", tar(&[hardlink("a", "b"), tar_file("b", b"x")])),
        ("hard link to a folder", tar(&[folder("d/"), hardlink("a", "d")])),
        ("file over a link", tar(&[tar_link("a", "b"), tar_file("a", b"x")])),
        ("link over a file", tar(&[tar_file("a", b"x"), tar_link("a", "b")])),
        ("link over a folder", tar(&[tar_file("a/b", b"x"), tar_link("a", "c")])),
        ("file twice", tar(&[tar_file("a", b"x"), tar_file("./a", b"y")])),
        ("file below a file", tar(&[tar_file("a", b"x"), tar_file("a/b", b"y")])),
        ("file over a folder", tar(&[folder("a/"), tar_file("a", b"y")])),
        ("character device", tar(&[tar_entry("dev/null", EntryType::Char, "", b"")])),
        ("block device", tar(&[tar_entry("dev/sda", EntryType::Block, "", b"")])),
        ("named pipe", tar(&[tar_entry("pipe", EntryType::Fifo, "", b"")])),
        ("sparse file", tar(&[tar_entry("sparse", EntryType::GNUSparse, "", b"")])),
        ("sparse file in pax", tar(&[pax(EntryType::XHeader, &[("GNU.sparse.major", "1")]), tar_file("sparse", b"x")])),
        ("unknown kind", tar(&[tar_entry("odd", EntryType::new(b'V'), "", b"")])),
        ("folder with data", tar(&[tar_entry("d/", EntryType::Directory, "", b"x")])),
    ]
}

/// Tar archives that are damaged, or larger than allowed.
pub fn tar_damage() -> Vec<(&'static str, Vec<u8>)> {
    let mut checksum = tar(&[tar_file("a", b"x")]);
    checksum[0] = b'b';
    let hidden = [tar(&[tar_file("a", b"x")]), tar_file("../evil", b"x")].concat();
    let names: Vec<_> = (0..40).map(|number| tar_file(&format!("{number}{}", "n".repeat(90)), b"")).collect();
    let announced = |size: &str| tar(&[pax(EntryType::XHeader, &[("size", size)]), tar_file("a", &[7; 512])]);
    vec![
        ("no data", Vec::new()),
        ("text", b"this is no archive at all".repeat(50)),
        ("wrong checksum", checksum),
        ("cut in the data", tar_file("a", &[1; 2000])[..1024].to_vec()),
        ("no end mark", tar_file("a", b"x")),
        ("half an end mark", [tar_file("a", b"x"), vec![0; 512], tar_file("b", b"x")].concat()),
        ("entries behind the end mark", hidden),
        ("larger than it is", tar_header("a", EntryType::Regular, 1 << 32, "")),
        ("two sizes", announced("0")),
        ("size that is no number", announced("many")),
        ("pax record that lies about its length", {
            tar(&[tar_entry("pax", EntryType::XHeader, "", b"99 path=a\n"), tar_file("a", b"x")])
        }),
        ("giant long name", tar_header("n", EntryType::GNULongName, 1 << 30, "")),
        ("endless extended headers", { tar(&vec![pax(EntryType::XHeader, &[("comment", "x")]); 300]) }),
        ("too many entries", tar(&vec![folder("d/"); 51])),
        ("too many names", tar(&names)),
        ("too large", tar(&[tar_file("big", &vec![1; 9 << 20])])),
    ]
}

/// Compressed tar archives that are damaged, or bombs.
pub fn gzip_cases() -> Vec<(&'static str, Vec<u8>)> {
    let good = gzip(&tar(&[tar_file("a", b"hello")]));
    let mut wrong_sum = good.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 0x55;
    vec![
        ("gzip cut short", good[..good.len() - 5].to_vec()),
        ("gzip with a wrong checksum", wrong_sum),
        ("gzip with rubbish behind it", [good.clone(), b"rubbish".to_vec()].concat()),
        ("plain tar named tar.gz", tar(&[tar_file("a", b"x")])),
        ("bomb of zeros", gzip(&tar(&[tar_file("zeros", &vec![0; 4 << 20])]))),
        ("bomb behind the end mark", { gzip(&[tar(&[tar_file("a", b"x")]), vec![0; 4 << 20]].concat()) }),
        ("bomb in many gzip members", {
            [gzip(&tar_header("zeros", EntryType::Regular, 1 << 32, "")), gzip(&vec![0; 1 << 20]).repeat(6)].concat()
        }),
    ]
}
