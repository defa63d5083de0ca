//! Hostile zip and nupkg archives, each a few records made by hand.

use crate::common::{ZipEntry, tar, tar_file, zip, zip_declaring};

/// Zip files that are refused.
pub fn zip_cases() -> Vec<(&'static str, Vec<u8>)> {
    let file = ZipEntry::file;
    let named = |name: &[u8]| ZipEntry { name: name.to_vec(), ..file("x", b"x") };
    let good = zip(&[file("a", b"hello")]);
    let mut flipped = file("a", b"hello");
    flipped.crc ^= 1;
    let smaller = ZipEntry { declared_size: 10, ..file("liar", &[b'x'; 5000]) };
    let larger = ZipEntry { declared_size: 5000, ..file("liar", b"x") };
    let bomb = file("zeros", &vec![0; 4 << 20]);
    let modest = ZipEntry { declared_size: 100, ..bomb.clone() };
    vec![
        ("zip: absolute path", zip(&[file("/etc/passwd", b"x")])),
        ("zip: parent folder", zip(&[file("../evil", b"x")])),
        ("zip: parent folder by backslash", zip(&[file("a\\..\\..\\evil", b"x")])),
        ("zip: network path", zip(&[file("\\\\server\\share\\evil", b"x")])),
        ("zip: drive letter", zip(&[file("C:\\evil", b"x")])),
        ("zip: NUL", zip(&[named(b"safe\0../evil")])),
        ("zip: empty path", zip(&[named(b"")])),
        ("zip: link to an absolute path", { zip(&[ZipEntry::with_mode("a", 0o120_777, b"/etc/passwd")]) }),
        ("zip: link out", zip(&[ZipEntry::with_mode("a", 0o120_777, b"../etc")])),
        ("zip: file through a link", { zip(&[ZipEntry::with_mode("a", 0o120_777, b"b"), file("a/evil", b"x")]) }),
        ("zip: link whose target never ends", { zip(&[ZipEntry::with_mode("a", 0o120_777, &vec![b'x'; 1 << 20])]) }),
        ("zip: device", zip(&[ZipEntry::with_mode("dev", 0o020_666, b"")])),
        ("zip: pipe", zip(&[ZipEntry::with_mode("pipe", 0o010_666, b"")])),
        ("zip: folder with data", zip(&[ZipEntry::with_mode("d/", 0o040_755, b"x")])),
        ("zip: file twice", zip(&[file("a", b"x"), file("a", b"y")])),
        ("zip: file twice by backslash", zip(&[file("d/a", b"x"), file("d\\a", b"y")])),
        ("zip: encrypted", zip(&[ZipEntry { flags: 1, ..file("a", b"x") }])),
        ("zip: unknown method", zip(&[ZipEntry { method: 14, ..file("a", b"x") }])),
        ("zip: wrong checksum", zip(&[flipped])),
        ("zip: holds more than it declares", zip(&[smaller])),
        ("zip: holds less than it declares", zip(&[larger])),
        ("zip: bomb", zip(&[bomb])),
        ("zip: bomb that declares little", zip(&[modest])),
        ("zip: too many entries", zip_declaring(&vec![file("a", b""); 51], 51)),
        ("zip: more entries declared than there are", zip_declaring(&[file("a", b"")], 40)),
        ("zip: too deep", zip(&[file("1/2/3/4/5/6/7/8/9", b"x")])),
        ("zip: cut short", good[..good.len() - 3].to_vec()),
        ("zip: no data", Vec::new()),
        ("zip: tar named zip", tar(&[tar_file("a", b"x")])),
    ]
}

/// NuGet packages whose escapes hide something.
pub fn nupkg_cases() -> Vec<(&'static str, Vec<u8>)> {
    let file = ZipEntry::file;
    vec![
        ("nupkg: escaped parent folder", zip(&[file("content/%2e%2e/%2e%2e/evil", b"x")])),
        ("nupkg: escaped slash", zip(&[file("..%2fevil", b"x")])),
        ("nupkg: escaped backslash", zip(&[file("a%5c..%5c..%5cevil", b"x")])),
        ("nupkg: escaped NUL", zip(&[file("a%00b", b"x")])),
        ("nupkg: same name escaped", zip(&[file("a b", b"x"), file("a%20b", b"y")])),
    ]
}
