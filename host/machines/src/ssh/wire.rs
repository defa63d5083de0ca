//! The socket below an SSH session, tuned for many small round trips and for noticing a dead peer.
//!
//! Without TCP_NODELAY every request waits 40 ms for a delayed acknowledgement; TCP_QUICKACK does the same for the
//! answers and has to be set again after each read. TCP_USER_TIMEOUT makes a silent link an error.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

/// Sent but unacknowledged bytes older than this end the connection.
const SILENCE: Duration = Duration::from_secs(12);

/// A connected socket.
pub(super) struct Wire {
    stream: TcpStream,
}

/// Which way libssh2 wants to move bytes next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Wire {
    /// Connects to the first address of `host` that answers before `deadline`.
    pub(super) fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    tune(&stream)?;
                    return Ok(Self { stream });
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// A second handle to the same socket, for the session to own.
    pub(super) fn share(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Whether the other end has closed the connection, or it broke. Bytes that are there were not read yet.
    pub(super) fn is_over(&self) -> bool {
        match self.stream.peek(&mut [0]) {
            Ok(read) => read == 0,
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// Waits until the socket is ready as wanted, `wake` has bytes, or `timeout` is over. Whether the socket has bytes.
    pub(super) fn wait(&self, want: Interest, wake: Option<&UnixStream>, timeout: Duration) -> io::Result<bool> {
        let mut events = 0;
        if want.read {
            events |= libc::POLLIN;
        }
        if want.write {
            events |= libc::POLLOUT;
        }
        let mut fds =
            [entry(self.stream.as_raw_fd(), events), entry(wake.map_or(-1, AsRawFd::as_raw_fd), libc::POLLIN)];
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: `fds` is a live array of two initialized entries, and poll writes only their `revents`. Descriptors
        // are borrowed from open handles for the length of the call; -1 is ignored by poll.
        #[allow(unsafe_code)]
        let count = unsafe { libc::poll(fds.as_mut_ptr(), 2, millis) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
        }
        let [socket, _] = fds;
        let readable = socket.revents & !libc::POLLOUT != 0;
        if readable {
            self.acknowledge_at_once();
        }
        Ok(readable)
    }

    /// Asks the kernel not to hold back the next acknowledgements. It forgets this wish by itself.
    pub(super) fn acknowledge_at_once(&self) {
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&self.stream).set_tcp_quickack(true);
    }
}

fn entry(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(3));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    Ok(())
}
