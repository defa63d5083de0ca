//! Memory does not grow with package size: 200 MiB pass through a process that stays small.
//!
//! A test of its own, and so a process of its own, because it looks at the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod common;

use std::pin::Pin;
use std::task::{Context, Poll};

use common::{repository, tar_header};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use windlass_packages::digest::Hasher;
use windlass_packages::payload::Form;
use windlass_packages::repository::{PushOptions, Repository};

const BIG: u64 = 200 << 20;
/// What push and open may take beyond what a small package took.
const ALLOWED: u64 = 24 << 20;

/// The noise is made once and repeated, so that the test measures the repository and not itself.
const NOISE: usize = 64 << 10;

/// A tar archive with one file of noise, made as it is read.
struct Generated {
    header: Vec<u8>,
    left: u64,
    end: u64,
    noise: Vec<u8>,
}

impl Generated {
    fn new(size: u64) -> Self {
        let header = tar_header("noise", tar::EntryType::Regular, size, "");
        let noise = (0..NOISE as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        Self { header, left: size, end: 1024, noise }
    }
}

impl AsyncRead for Generated {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let room = buffer.remaining();
        if !self.header.is_empty() {
            let now = room.min(self.header.len());
            buffer.put_slice(&self.header.drain(..now).collect::<Vec<_>>());
        } else if self.left > 0 {
            let start = self.left as usize % NOISE;
            let now = room.min(NOISE - start).min(self.left as usize);
            buffer.put_slice(&self.noise[start..start + now]);
            self.left -= now as u64;
        } else {
            let now = room.min(self.end as usize);
            buffer.put_slice(&vec![0; now]);
            self.end -= now as u64;
        }
        Poll::Ready(Ok(()))
    }
}

/// The most memory this process ever held, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

async fn push_and_read(repository: &Repository, version: &str, size: u64) {
    let name = format!("noise.{version}.tar").parse().unwrap();
    let pushed = repository.push(name, Generated::new(size), PushOptions::default()).await.unwrap();
    assert_eq!(pushed.record.original.size, 512 + size + 1024);
    let source = repository.open_payload(&pushed.record, Form::PlainTar).await.unwrap();
    let mut file = source.open().await.unwrap();
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    assert_eq!(hasher.finish(), source.blob());
}

#[tokio::test]
async fn a_large_package_takes_no_more_memory_than_a_small_one() {
    let (_folder, repository) = repository().await;
    push_and_read(&repository, "1.0", 1 << 20).await;
    let small = peak();
    push_and_read(&repository, "2.0", BIG).await;
    let grown = peak() - small;
    assert!(grown < ALLOWED, "{} MiB more for {} MiB", grown >> 20, BIG >> 20);
}
