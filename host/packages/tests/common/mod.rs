//! Archives made in memory, and a repository in a temporary folder, for the tests here.

#![allow(dead_code)]

use std::io::{Cursor, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use tempfile::TempDir;
use windlass_packages::repository::{MemoryIndex, Repository, RepositoryConfig};

/// A raw tar header that says just what it is told, sound or not.
pub fn tar_header(path: &str, kind: EntryType, size: u64, link: &str) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_entry_type(kind);
    let fields = header.as_old_mut();
    fields.name[..path.len()].copy_from_slice(path.as_bytes());
    fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// A header with its data, padded to whole blocks.
pub fn tar_entry(path: &str, kind: EntryType, link: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = tar_header(path, kind, data.len() as u64, link);
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A file inside a tar archive.
pub fn tar_file(path: &str, data: &[u8]) -> Vec<u8> {
    tar_entry(path, EntryType::Regular, "", data)
}

/// A symbolic link inside a tar archive.
pub fn tar_link(path: &str, target: &str) -> Vec<u8> {
    tar_entry(path, EntryType::Symlink, target, b"")
}

/// Entries and the end mark.
pub fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Compresses with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A pax extended header holding these records.
pub fn pax(kind: EntryType, records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = String::new();
    for (key, value) in records {
        let body = format!(" {key}={value}\n");
        let mut length = body.len();
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        data.push_str(&format!("{length}{body}"));
    }
    tar_entry("pax", kind, "", data.as_bytes())
}

/// One entry of a raw zip file. Everything can lie.
#[derive(Clone)]
pub struct ZipEntry {
    pub name: Vec<u8>,
    pub mode: u32,
    pub method: u16,
    pub flags: u16,
    pub data: Vec<u8>,
    pub declared_size: u32,
    pub crc: u32,
}

impl ZipEntry {
    pub fn file(name: &str, content: &[u8]) -> Self {
        Self::with_mode(name, 0o100_644, content)
    }

    pub fn with_mode(name: &str, mode: u32, content: &[u8]) -> Self {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(content);
        Self {
            name: name.as_bytes().to_vec(),
            mode,
            method: 8,
            // The name is UTF-8.
            flags: 1 << 11,
            data: encoder.finish().unwrap(),
            declared_size: content.len() as u32,
            crc: crc.sum(),
        }
    }
}

/// A zip file of these entries, in this order, with this number of entries declared.
pub fn zip_declaring(entries: &[ZipEntry], count: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = out.len() as u32;
        let mut shared = Vec::new();
        shared.extend(20u16.to_le_bytes());
        shared.extend(entry.flags.to_le_bytes());
        shared.extend(entry.method.to_le_bytes());
        shared.extend([0, 0, 0x21, 0x5a]);
        shared.extend(entry.crc.to_le_bytes());
        shared.extend((entry.data.len() as u32).to_le_bytes());
        shared.extend(entry.declared_size.to_le_bytes());
        shared.extend((entry.name.len() as u16).to_le_bytes());
        shared.extend(0u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&shared);
        out.extend(&entry.name);
        out.extend(&entry.data);
        directory.extend(b"PK\x01\x02");
        // Made on Unix, so that the upper half of the attributes is a mode.
        directory.extend([20, 3]);
        directory.extend(&shared);
        directory.extend([0; 6]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&entry.name);
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// A zip file of these entries, in this order.
pub fn zip(entries: &[ZipEntry]) -> Vec<u8> {
    zip_declaring(entries, entries.len() as u16)
}

/// The entries of a tar stream: path, what it is, permissions, content or link target.
pub fn read_tar(bytes: &[u8]) -> Vec<(String, &'static str, u32, String)> {
    let mut archive = tar::Archive::new(Cursor::new(bytes));
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mode = entry.header().mode().unwrap();
        let kind = entry.header().entry_type();
        if kind.is_symlink() {
            let target = entry.link_name().unwrap().unwrap().to_str().unwrap().to_owned();
            found.push((path, "link", mode, target));
            continue;
        }
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
        found.push((path, if kind.is_dir() { "folder" } else { "file" }, mode, content));
    }
    found
}

/// A repository in a folder that vanishes with the test.
pub async fn repository() -> (TempDir, Repository) {
    let folder = tempfile::tempdir().unwrap();
    let config = RepositoryConfig::new(folder.path());
    let repository = Repository::open(config, Arc::new(MemoryIndex::default())).await.unwrap();
    (folder, repository)
}
