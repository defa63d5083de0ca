//! Recording a run with the preloaded recorder, and reading its trace back.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What happened to a file or a name.
#[derive(Debug)]
pub enum Event {
    Create {
        path: String,
        inode: u64,
    },
    MakeDir {
        path: String,
        inode: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    Write {
        inode: u64,
        offset: usize,
        data: Vec<u8>,
    },
    Truncate {
        inode: u64,
        length: usize,
    },
    /// Covers the first `covered` events of the trace.
    Sync {
        inode: u64,
        covered: usize,
    },
    SyncRange {
        inode: u64,
        offset: usize,
        length: usize,
    },
    /// Something was told on standard output.
    Told(String),
}

/// Compiles the recorder with the system's C compiler.
pub fn build_recorder(into: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/powercut/recorder.c");
    let library = into.join("recorder.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .args(["-ldl", "-lpthread"]);
    let status = cc.status().expect("the power-cut tests need a C compiler named cc");
    assert!(status.success(), "the recorder does not compile");
    library
}

/// Reads a trace. A record cut short at the end is left out: the process was ending.
pub fn read(path: &Path) -> Vec<Event> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while let Some(event) = next(&mut rest) {
        events.push(event);
    }
    events
}

fn next(rest: &mut &[u8]) -> Option<Event> {
    let line_end = rest.iter().position(|&b| b == b'\n')?;
    let head = std::str::from_utf8(&rest[..line_end]).unwrap();
    let mut fields = head.split(' ');
    let op = fields.next()?;
    let numbers: Vec<u64> = fields.map(|f| f.parse().unwrap()).collect();
    let [inode, a, b, path_length, data_length] = numbers[..] else { panic!("not a trace record: {head}") };
    let (a, b, path_length, data_length) = (a as usize, b as usize, path_length as usize, data_length as usize);
    let body = rest.get(line_end + 1..line_end + 1 + path_length + data_length)?;
    let (path, data) = body.split_at(path_length);
    let path = String::from_utf8(path.to_vec()).unwrap();
    *rest = &rest[line_end + 1 + body.len()..];
    Some(match op {
        "C" => Event::Create { path, inode },
        "D" => Event::MakeDir { path, inode },
        "M" => {
            let (from, to) = path.split_once('\0').unwrap();
            Event::Rename { from: from.into(), to: to.into() }
        }
        "U" => Event::Remove { path },
        "W" => Event::Write { inode, offset: a, data: data.to_vec() },
        "Z" => Event::Truncate { inode, length: a },
        "S" => Event::Sync { inode, covered: a },
        "R" => Event::SyncRange { inode, offset: a, length: b },
        "A" => Event::Told(String::from_utf8_lossy(data).into_owned()),
        other => panic!("unknown trace record {other}"),
    })
}
