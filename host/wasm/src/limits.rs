//! What a run may use, and what it is told when it wants more.

use std::{fmt, time::Duration};

use wasmtime::ResourceLimiter;

/// Bounds of one run. The defaults fit every step that is not a program of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, bytes.
    pub memory: usize,
    /// Time the guest may compute between two effects.
    pub compute: Duration,
    /// Time the run may take, waiting included. A suspended run starts anew.
    pub wall: Duration,
    /// Time between a cancel and the end of a guest that does not react.
    pub grace: Duration,
    /// Handles (commands, packages, locks, …) that are open at once.
    pub handles: usize,
    /// Bytes that one call may carry from the guest to the host.
    pub call_bytes: usize,
    /// Lines, and bytes of them, that the guest itself may log.
    pub log_lines: u64,
    /// See `log_lines`.
    pub log_bytes: u64,
    /// Output variables.
    pub outputs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            compute: Duration::from_secs(60),
            wall: Duration::from_secs(24 * 3600),
            grace: Duration::from_secs(5),
            handles: 1000,
            call_bytes: 4 << 20,
            log_lines: 20_000,
            log_bytes: 8 << 20,
            outputs: 200,
        }
    }
}

/// A bound that a guest ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Hit {
    /// More linear memory than allowed.
    #[error("used more than {} of memory", Bytes(*limit))]
    Memory {
        /// The bound, in bytes.
        limit: usize,
    },
    /// More tables, memories or instances than any plugin needs.
    #[error("has more tables, memories or instances than a plugin may")]
    Shape,
    /// Too many handles open at once.
    #[error("has more than {limit} handles open: it does not drop what it no longer uses")]
    Handles {
        /// The bound.
        limit: usize,
    },
    /// Commands, requests and the like that hold too much data together.
    #[error(
        "holds more than {} in commands and requests: it does not drop what it no longer uses",
        Bytes(*limit)
    )]
    Kept {
        /// The bound, in bytes.
        limit: usize,
    },
    /// Too much data in one call.
    #[error("handed over more than {} in one call", Bytes(*limit))]
    CallBytes {
        /// The bound, in bytes.
        limit: usize,
    },
    /// Computed too long.
    #[error("computed for more than {} s without calling the host", limit.as_secs_f32())]
    Compute {
        /// The bound.
        limit: Duration,
    },
    /// Recursed too deeply.
    #[error("recursed until its stack of {} was used up", Bytes(*limit))]
    Stack {
        /// The bound, in bytes.
        limit: usize,
    },
    /// Took too long in all.
    #[error("took longer than {} s", limit.as_secs_f32())]
    Wall {
        /// The bound.
        limit: Duration,
    },
}

/// A number of bytes for people.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

/// Refuses growth beyond the bounds, with an error that says which.
pub(crate) struct Limiter {
    limits: Limits,
    memory: usize,
    peak: usize,
}

/// Linear memories, tables and core instances of a component. The Rust SDK needs one, two and six.
const MAX_MEMORIES: usize = 4;
const MAX_TABLES: usize = 16;
const MAX_INSTANCES: usize = 32;
const MAX_TABLE_ELEMENTS: usize = 20_000;

impl Limiter {
    pub fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), memory: 0, peak: 0 }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Most memory that was in use, bytes.
    pub fn peak(&self) -> usize {
        self.peak
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // The bound is for all memories of the guest together.
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.limits.memory {
            return Err(wasmtime::Error::new(Hit::Memory { limit: self.limits.memory }));
        }
        self.memory = total;
        self.peak = self.peak.max(total);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE_ELEMENTS { Err(wasmtime::Error::new(Hit::Shape)) } else { Ok(true) }
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}
