//! Counts, hashes and passes on the inflated stream, and stops it when a limit is met.
//!
//! Everything inflated goes through one `Meter`, so no declared size can hide bytes from it.

use std::io::Write;

use super::{ArchiveError, Limits, StopFlag, quote};
use crate::digest::{Blob, Hasher};

/// The one place that inflated bytes pass.
pub(super) struct Meter<'a> {
    limits: &'a Limits,
    packed: u64,
    inflated: u64,
    stop: &'a StopFlag,
    hasher: Hasher,
    out: &'a mut dyn Write,
}

impl<'a> Meter<'a> {
    pub(super) fn new(limits: &'a Limits, packed: u64, stop: &'a StopFlag, out: &'a mut dyn Write) -> Self {
        Self { limits, packed, inflated: 0, stop, hasher: Hasher::default(), out }
    }

    /// Counts `bytes` freshly inflated bytes of `entry`.
    pub(super) fn inflated(&mut self, bytes: usize, entry: &str) -> Result<(), ArchiveError> {
        self.stop.check()?;
        self.inflated += bytes as u64;
        let Limits { unpacked_bytes, ratio, ratio_floor, .. } = *self.limits;
        if self.inflated > unpacked_bytes {
            return Err(ArchiveError::Limit {
                entry: quote(entry),
                what: format!("the package unpacks to more than {unpacked_bytes} bytes"),
                setting: "packages.max_unpacked_bytes",
            });
        }
        if self.inflated > ratio_floor && self.inflated > self.packed.saturating_mul(ratio) {
            return Err(ArchiveError::Limit {
                entry: quote(entry),
                what: format!("the package unpacks to more than {ratio} times its size"),
                setting: "packages.max_ratio",
            });
        }
        Ok(())
    }

    /// Takes the next bytes of the plain tar stream.
    pub(super) fn emit(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(ArchiveError::Io)
    }

    /// The digest of the plain tar stream.
    pub(super) fn finish(self) -> Result<Blob, ArchiveError> {
        self.out.flush().map_err(ArchiveError::Io)?;
        Ok(self.hasher.finish())
    }
}
