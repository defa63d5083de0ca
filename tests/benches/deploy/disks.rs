//! Disks of the targets: ten machines do not share one, so neither should the ten servers that stand for them.
//!
//! On one file system the targets slow each other down, and the server's syncs carry the targets' changes along. So
//! each gets an ext4 of its own, in a file on the same disk, where this machine lets us mount one. `--memory` gives
//! them none, `--shared-disk` puts them all on the server's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use windlass_tests::sshd::{Options, Sshd};

/// The folders of the targets; what was mounted for them goes when this is dropped.
pub struct Disks {
    folders: Vec<PathBuf>,
    mounted: bool,
    pub name: &'static str,
    _images: Option<TempDir>,
}

impl Disks {
    /// What the arguments of this process ask for.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let given = |flag: &str| std::env::args().any(|argument| argument == flag);
        let without =
            |folder: PathBuf, name| Ok(Self { folders: vec![folder; count], mounted: false, name, _images: None });
        if given("--shared-disk") {
            return without(std::env::temp_dir(), "one disk with the server");
        }
        if !given("--memory") {
            if let Some(disks) = Self::own(count)? {
                return Ok(disks);
            }
            println!("no disk of their own for the targets here (root, mkfs.ext4 and loop devices are needed)");
        }
        without("/dev/shm".into(), "no disk, memory")
    }

    /// A server on each of them.
    pub fn targets(&self) -> std::io::Result<Vec<Sshd>> {
        let on = |folder: &PathBuf| Sshd::start_with(Options { inside: Some(folder.clone()), ..Default::default() });
        self.folders.iter().map(on).collect()
    }

    fn own(count: usize) -> std::io::Result<Option<Self>> {
        let images = tempfile::tempdir()?;
        let mut disks = Self { folders: Vec::new(), mounted: true, name: "a disk each", _images: None };
        for number in 0..count {
            let folder = images.path().join(number.to_string());
            if !mount(&images.path().join(format!("{number}.image")), &folder) {
                return Ok(None);
            }
            disks.folders.push(folder);
        }
        disks._images = Some(images);
        Ok(Some(disks))
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        if self.mounted {
            for folder in &self.folders {
                // Nothing else can be done about one that is still in use; it goes with the machine.
                let _ = run("umount", &["--lazy".as_ref(), folder.as_ref()]);
            }
        }
    }
}

fn mount(image: &Path, folder: &Path) -> bool {
    const BYTES: u64 = 4 << 30;
    let sized = std::fs::File::create(image).and_then(|file| file.set_len(BYTES));
    sized.is_ok()
        && std::fs::create_dir(folder).is_ok()
        && run("mkfs.ext4", &["-q".as_ref(), image.as_ref()])
        && run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), folder.as_ref()])
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
