//! Points at which a test ends the process, to see that what comes back is whole.
//!
//! They exist in builds with debug assertions only; elsewhere passing one is nothing. There, too, they cost one look at
//! a flag unless a variable arms them:
//!
//! * `WINDLASS_KILL_TRACE=FILE`: the name of each point that is passed is appended to the file, one a line.
//! * `WINDLASS_KILL_AT=FILE`: the file names points, one a line. The process ends at the first of them that it passes,
//!   as suddenly as by `kill -9`, having appended the name to `FILE.done`. A point that is in there already is passed
//!   by, so a process that is started again and again with the same file dies once at each.
//!
//! A name says where in the program it is and, as far as that is the same in every run, for what: which step on which
//! machine, which effect. `tests/tests/e2e_kill_points.rs` uses them.

/// Passes the point of that name. The name is made only when points are armed.
#[inline]
pub fn pass(name: impl FnOnce() -> String) {
    #[cfg(debug_assertions)]
    if let Some(points) = armed::points() {
        points.pass(&name());
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Whether anything is done at points; for names that are costly to gather.
#[inline]
#[must_use]
pub fn are_armed() -> bool {
    #[cfg(debug_assertions)]
    return armed::points().is_some();
    #[cfg(not(debug_assertions))]
    false
}

#[cfg(debug_assertions)]
mod armed {
    use std::collections::HashSet;
    use std::fs::{File, OpenOptions};
    use std::io::{self, Write};
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};

    pub(super) struct Points {
        trace: Option<Mutex<File>>,
        kill: Option<Mutex<Kill>>,
    }

    struct Kill {
        at: HashSet<String>,
        done: File,
    }

    /// The points, if a variable arms them. Read once.
    pub(super) fn points() -> Option<&'static Points> {
        static POINTS: OnceLock<Option<Points>> = OnceLock::new();
        POINTS.get_or_init(|| Points::from_env().unwrap_or_else(ignored)).as_ref()
    }

    fn ignored(error: io::Error) -> Option<Points> {
        tracing::error!(%error, "the points of WINDLASS_KILL_TRACE and WINDLASS_KILL_AT cannot be used and do nothing");
        None
    }

    impl Points {
        fn from_env() -> io::Result<Option<Self>> {
            let file = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
            let trace = file("WINDLASS_KILL_TRACE").map(|path| appended(&path)).transpose()?;
            let kill = file("WINDLASS_KILL_AT").map(|path| Kill::read(&path)).transpose()?;
            let armed = trace.is_some() || kill.is_some();
            Ok(armed.then(|| Self { trace: trace.map(Mutex::new), kill: kill.map(Mutex::new) }))
        }

        pub(super) fn pass(&self, name: &str) {
            if let Some(trace) = &self.trace {
                let mut trace = trace.lock().unwrap_or_else(PoisonError::into_inner);
                // In one write, so that lines of two processes do not mix. A trace that lacks a line fails its test.
                let _ = trace.write_all(format!("{name}\n").as_bytes());
            }
            let Some(kill) = &self.kill else { return };
            let mut kill = kill.lock().unwrap_or_else(PoisonError::into_inner);
            if kill.at.remove(name) && kill.done.write_all(format!("{name}\n").as_bytes()).is_ok() {
                // Neither destructors nor buffers of this process get another chance, as by any other signal.
                std::process::abort();
            }
        }
    }

    impl Kill {
        fn read(path: &Path) -> io::Result<Self> {
            let lines = |path: &Path| -> io::Result<HashSet<String>> {
                Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect())
            };
            let mut done = path.as_os_str().to_owned();
            done.push(".done");
            let done = PathBuf::from(done);
            let file = appended(&done)?;
            let over = lines(&done)?;
            Ok(Self { at: lines(path)?.difference(&over).cloned().collect(), done: file })
        }
    }

    fn appended(path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).open(path)
    }
}
