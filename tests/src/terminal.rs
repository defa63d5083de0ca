//! A command on a pseudo terminal, and what a person would see there.
//!
//! The screen is kept by a terminal emulator that reads what the command writes. Every wait is bounded.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::shop::Anything;

/// How long a command may take until it shows what is waited for, or ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the screen is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Lines kept that have left the screen.
const SCROLLBACK: usize = 1000;

/// A command on a terminal of its own; killed with its handle.
pub struct Terminal {
    child: Child,
    near: File,
    /// Kept open, so that what the command wrote last can still be read when it has ended.
    far: OwnedFd,
    seen: Arc<Mutex<Seen>>,
}

/// What came out of the command.
struct Seen {
    parser: vt100::Parser,
    raw: Vec<u8>,
}

impl Terminal {
    /// Starts a command on a terminal of so many columns and rows.
    ///
    /// # Errors
    /// When the system has no pseudo terminal, or the command does not start.
    pub fn start(command: &mut Command, (columns, rows): (u16, u16)) -> Anything<Self> {
        let (near, far) = pair(columns, rows)?;
        let end = || far.try_clone();
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        // SAFETY: setsid, ioctl and prctl are async-signal-safe and touch no memory of ours, as is required between
        // fork and exec. Standard input is the terminal by then.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        let seen = Seen { parser: vt100::Parser::new(rows, columns, SCROLLBACK), raw: Vec::new() };
        let seen = Arc::new(Mutex::new(seen));
        let (mut reader, kept) = (near.try_clone()?, Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // Fails once both ends are closed: the handle is gone.
            while let Ok(size @ 1..) = reader.read(&mut piece) {
                let mut seen = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let piece = piece.get(..size).unwrap_or_default();
                seen.parser.process(piece);
                seen.raw.extend_from_slice(piece);
            }
        });
        Ok(Self { child, near, far, seen })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        self.seen().parser.screen().contents()
    }

    /// Everything that was written, with all that steers the terminal.
    #[must_use]
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen().raw).into_owned()
    }

    /// Whether the cursor is there.
    #[must_use]
    pub fn shows_cursor(&self) -> bool {
        !self.seen().parser.screen().hide_cursor()
    }

    /// Column and row of the cursor, from 0.
    #[must_use]
    pub fn cursor(&self) -> (u16, u16) {
        let (row, column) = self.seen().parser.screen().cursor_position();
        (column, row)
    }

    /// Waits until the screen is as wanted, and gives it.
    ///
    /// # Errors
    /// When it never is, with the last screen.
    pub fn until(&self, wanted: impl Fn(&str) -> bool) -> Anything<String> {
        let begin = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return Ok(screen);
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("the screen did not get there in {PATIENCE:?}:\n{screen}").into());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Types something.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn type_in(&mut self, keys: &str) -> io::Result<()> {
        self.near.write_all(keys.as_bytes())
    }

    /// Makes the terminal larger or smaller, as dragging its window does.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        // Locked over both, so that nothing is read in between.
        let mut seen = self.seen();
        set_size(&self.near, columns, rows)?;
        seen.parser.screen_mut().set_size(rows, columns);
        Ok(())
    }

    /// The settings of the terminal that a program may leave in disorder: echo, line mode, signals.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn modes(&self) -> io::Result<[libc::tcflag_t; 4]> {
        // SAFETY: a termios is plain numbers, for which zeros are values; tcgetattr writes only into it.
        #[allow(unsafe_code)]
        let (done, modes) = unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            (libc::tcgetattr(self.far.as_raw_fd(), &raw mut modes), modes)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok([modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag])
    }

    /// Waits for the end of the command, and gives its exit code; 128 and more for a signal. What it wrote is on the
    /// screen by then.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn end(&mut self) -> Anything<i32> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                // Written by this side after all that the command wrote; once it is read, all of that is.
                const MARK: &str = "\u{1b}]0;end\u{7}";
                File::from(self.far.try_clone()?).write_all(MARK.as_bytes())?;
                while !self.raw().ends_with(MARK) && begin.elapsed() < PATIENCE {
                    std::thread::sleep(LOOK);
                }
                return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
            }
            std::thread::sleep(LOOK);
        }
        Err(format!("it did not end in {PATIENCE:?}; its screen:\n{}", self.screen()).into())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two ends of a new pseudo terminal: the one of the person, and the one of the command.
fn pair(columns: u16, rows: u16) -> io::Result<(File, OwnedFd)> {
    let (mut near, mut far) = (-1, -1);
    // SAFETY: openpty writes two descriptors into our integers; name, settings and size may be null.
    #[allow(unsafe_code)]
    let done = unsafe {
        libc::openpty(&raw mut near, &raw mut far, std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut())
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors are new, open, and owned by nobody else.
    #[allow(unsafe_code)]
    let (near, far) = unsafe { (File::from_raw_fd(near), OwnedFd::from_raw_fd(far)) };
    for end in [near.as_raw_fd(), far.as_raw_fd()] {
        // SAFETY: fcntl with F_SETFD takes plain numbers. No child may keep an end open that is not its own.
        #[allow(unsafe_code)]
        if unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    set_size(&near, columns, rows)?;
    Ok((near, far))
}

fn set_size(near: &File, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads the struct behind the pointer, which lives until the call is over.
    #[allow(unsafe_code)]
    let done = unsafe { libc::ioctl(near.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
