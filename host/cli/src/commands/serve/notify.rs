//! Telling systemd how the service is: one datagram to the socket it named, nothing when it named none.
//!
//! By hand, because the whole protocol is one line of text (`man sd_notify`).

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Sends a state, such as `READY=1`. A service manager that does not listen is no reason to stop.
pub fn send(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = to(socket.as_bytes(), state) {
        tracing::warn!(%error, "could not tell the service manager");
    }
}

fn to(socket: &[u8], state: &str) -> io::Result<()> {
    let address = match socket.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_as_one_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        to(path.as_os_str().as_bytes(), "READY=1\nSTATUS=serving").unwrap();
        let mut got = [0; 64];
        let size = manager.recv(&mut got).unwrap();
        assert_eq!(&got[..size], b"READY=1\nSTATUS=serving");
    }

    #[test]
    fn nobody_listening_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        assert!(to(folder.path().join("gone").as_os_str().as_bytes(), "READY=1").is_err());
    }
}
