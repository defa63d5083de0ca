//! A TCP proxy that is as bad as networks are: it cuts, stalls, delays and truncates at random byte positions.
//!
//! What goes wrong is decided by a seed and the number of the connection, so a failing round can be played again. It
//! dies with its handle.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// How often a thread that carries nothing looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// Small pieces, so that a fault may come between any two bytes.
const PIECE: usize = 4096;

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Reset, on both sides.
    Cut,
    /// Nothing passes any more, and nobody is told.
    Stall,
    /// Nothing passes for a while, then it goes on.
    Delay(Duration),
    /// What was on its way is lost in part, then an orderly end on both sides.
    Truncate,
}

/// A fault and after how many bytes, both directions together, it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What.
    pub fault: Fault,
    /// When.
    pub after: u64,
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Decides everything.
    pub seed: u64,
    /// Faulty connections in a hundred.
    pub faulty: u32,
    /// Faults come within the first so many bytes.
    pub within: u64,
    /// Whether stalls are among them: each costs the time until it is noticed.
    pub stalls: bool,
}

impl Weather {
    /// The plan for one connection.
    #[must_use]
    pub fn plan(&self, connection: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ connection);
        let faulty = random.random_range(0..100) < self.faulty;
        // As many near the beginning, where the handshake is, as far out.
        let size = (self.within as f64).ln();
        let after = random.random_range(0.0..size).exp() as u64;
        let after = if random.random_bool(0.5) { after } else { random.random_range(0..self.within) };
        let fault = match random.random_range(0..if self.stalls { 8 } else { 7 }) {
            _ if !faulty => Fault::None,
            0..=2 => Fault::Cut,
            3..=4 => Fault::Truncate,
            5..=6 => Fault::Delay(Duration::from_millis(random.random_range(1..400))),
            _ => Fault::Stall,
        };
        Plan { fault, after }
    }
}

/// A proxy to one port of this machine.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: u16,
    weather: Mutex<Option<Weather>>,
    over: AtomicBool,
    /// Nobody gets through: connections are reset, new ones too.
    down: AtomicBool,
    connections: AtomicU64,
    /// The first connection that may live.
    first: AtomicU64,
    faults: AtomicU32,
}

impl Proxy {
    /// A proxy to `target` on loopback, with fair weather when there is none.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(target: u16, weather: Option<Weather>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            target,
            weather: Mutex::new(weather),
            over: AtomicBool::new(false),
            down: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            first: AtomicU64::new(0),
            faults: AtomicU32::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if serving.over.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(client) = client {
                    let shared = Arc::clone(&serving);
                    std::thread::spawn(move || shared.serve(client));
                }
            }
        });
        Ok(Self { port, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather for connections made from now on.
    pub fn set_weather(&self, weather: Option<Weather>) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// Cuts everything and lets nobody through until called with `false`.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::Relaxed);
    }

    /// Cuts the connections there are.
    pub fn cut(&self) {
        self.shared.first.store(self.shared.connections.load(Ordering::Acquire), Ordering::Release);
    }

    /// How many connections met their fault so far.
    #[must_use]
    pub fn faults(&self) -> u32 {
        self.shared.faults.load(Ordering::Relaxed)
    }

    /// How many connections were made so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
    }
}

/// One connection as both of its threads see it.
struct Link {
    number: u64,
    plan: Plan,
    carried: AtomicU64,
    struck: AtomicBool,
    ended: AtomicBool,
    sides: [TcpStream; 2],
}

impl Shared {
    fn serve(self: Arc<Self>, client: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::AcqRel);
        let weather = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = weather.map_or(Plan { fault: Fault::None, after: 0 }, |weather| weather.plan(number));
        let Ok(server) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.target))) else { return };
        for side in [&client, &server] {
            let _ = side.set_nodelay(true);
            let _ = side.set_read_timeout(Some(LOOK));
        }
        let link = Arc::new(Link {
            number,
            plan,
            carried: AtomicU64::new(0),
            struck: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            sides: [client, server],
        });
        let other = (Arc::clone(&self), Arc::clone(&link));
        let back = std::thread::spawn(move || other.0.carry(&other.1, 1, 0));
        self.carry(&link, 0, 1);
        let _ = back.join();
    }

    /// Carries bytes one way until the link ends.
    fn carry(&self, link: &Link, from: usize, to: usize) {
        let ([a, b], mut piece) = (&link.sides, [0; PIECE]);
        let (mut source, mut sink) = if (from, to) == (0, 1) { (a, b) } else { (b, a) };
        while !link.ended.load(Ordering::Acquire) && !self.over.load(Ordering::Relaxed) {
            if self.down.load(Ordering::Relaxed) || link.number < self.first.load(Ordering::Acquire) {
                return link.reset();
            }
            let bytes = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => piece.get(..length).unwrap_or_default(),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            let before = link.carried.fetch_add(bytes.len() as u64, Ordering::AcqRel);
            let room = link.plan.after.saturating_sub(before);
            let strikes = link.plan.fault != Fault::None && room < bytes.len() as u64;
            if !strikes {
                if sink.write_all(bytes).is_err() {
                    break;
                }
                continue;
            }
            let (first, rest) = bytes.split_at(usize::try_from(room).unwrap_or_default().min(bytes.len()));
            let again = link.struck.swap(true, Ordering::AcqRel);
            if !again {
                self.faults.fetch_add(1, Ordering::Relaxed);
            }
            match link.plan.fault {
                Fault::Cut => return link.reset(),
                Fault::Truncate => {
                    let _ = sink.write_all(first);
                    return link.end();
                }
                // Either way of the connection stands still: the other thread comes here with its next byte.
                Fault::Stall => return self.stand_still(link),
                Fault::Delay(pause) => {
                    let _ = sink.write_all(first);
                    if !again {
                        std::thread::sleep(pause);
                    }
                    if sink.write_all(rest).is_err() {
                        break;
                    }
                }
                Fault::None => {}
            }
        }
        link.end();
    }

    fn stand_still(&self, link: &Link) {
        while !link.ended.load(Ordering::Acquire) && !self.over.load(Ordering::Relaxed) {
            // The far sides may give up; a look that takes nothing tells.
            let gone = link.sides.iter().any(|side| matches!(side.peek(&mut [0]), Ok(0)));
            if gone {
                break;
            }
            std::thread::sleep(LOOK);
        }
        link.end();
    }
}

impl Link {
    /// An orderly end, both ways.
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        for side in &self.sides {
            let _ = side.shutdown(Shutdown::Both);
        }
    }

    /// No farewell: whatever is still on its way is lost. The reset goes out when both threads have let go.
    fn reset(&self) {
        self.ended.store(true, Ordering::Release);
        for side in &self.sides {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            // SAFETY: the descriptor is open as long as `side` lives, and the option's value is a `linger` of the
            // length that is told.
            #[allow(unsafe_code)]
            unsafe {
                libc::setsockopt(
                    std::os::fd::AsRawFd::as_raw_fd(side),
                    libc::SOL_SOCKET,
                    libc::SO_LINGER,
                    std::ptr::from_ref(&linger).cast(),
                    size_of::<libc::linger>() as libc::socklen_t,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_weather() {
        let weather = Weather { seed: 7, faulty: 70, within: 200_000, stalls: true };
        let plans: Vec<_> = (0..200).map(|number| weather.plan(number)).collect();
        assert_eq!(plans, (0..200).map(|number| weather.plan(number)).collect::<Vec<_>>());
        let count = |kind: fn(&Fault) -> bool| plans.iter().filter(|plan| kind(&plan.fault)).count();
        for kind in [
            |f: &Fault| *f == Fault::None,
            |f: &Fault| *f == Fault::Cut,
            |f: &Fault| *f == Fault::Stall,
            |f: &Fault| *f == Fault::Truncate,
            |f: &Fault| matches!(f, Fault::Delay(_)),
        ] {
            assert!(count(kind) >= 5, "{plans:?}");
        }
        assert!(plans.iter().any(|plan| plan.after < 1_000) && plans.iter().any(|plan| plan.after > 100_000));
    }
}
