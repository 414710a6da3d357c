//! Where the control API listens: TCP, or a unix socket that only its owner may use.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::timeout;

use super::{ControlError, Secret};
use crate::config::ControlAddr;
use crate::http_serve::Listener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Only the owner may connect.
const SOCKET_MODE: u32 = 0o600;

/// Whoever serves an existing socket file has this long to take a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A bound listener; a unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ControlListener {
    pub(super) listener: Listener,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(SocketFile),
}

impl ControlListener {
    /// Binds `address`; `None` when it is `off`. A socket file that nobody answers on is replaced.
    ///
    /// # Errors
    /// What bind(2) says; `AddrInUse` when somebody answers on the socket file, `AlreadyExists` when the path
    /// is some other file.
    pub(crate) async fn bind(address: &ControlAddr) -> io::Result<Option<ControlListener>> {
        match address {
            ControlAddr::Off => Ok(None),
            ControlAddr::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let place = Place::Tcp(listener.local_addr()?);
                Ok(Some(ControlListener { listener: Listener::Tcp(listener), place }))
            }
            ControlAddr::Unix(path) => {
                remove_stale(path).await?;
                let (listener, file) = bind_unix(path)?;
                Ok(Some(ControlListener { listener: Listener::Unix(listener), place: Place::Unix(file) }))
            }
        }
    }

    /// Returns where it listens, the real port included.
    pub(crate) fn address(&self) -> ControlAddr {
        match &self.place {
            Place::Tcp(address) => ControlAddr::Tcp(*address),
            Place::Unix(file) => ControlAddr::Unix(file.path.clone()),
        }
    }

    /// Checks that a token protects what others than this machine can reach.
    ///
    /// # Errors
    /// It is exposed, and there is no token.
    pub(crate) fn check_token(&self, token: Option<&Secret>) -> Result<(), ControlError> {
        match (self.exposed(), token) {
            (Some(address), None) => Err(ControlError::TokenMissing(address)),
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// Returns the address if others than this machine may reach it.
    fn exposed(&self) -> Option<SocketAddr> {
        match &self.place {
            Place::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(*address),
            Place::Tcp(_) | Place::Unix(_) => None,
        }
    }
}

/// A socket's file, for as long as it is ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own socket in this place meanwhile.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "can't remove the control socket");
        }
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    match socket_path(path).await? {
        SocketPath::Empty => Ok(()),
        SocketPath::Stale => fs::remove_file(path),
    }
}

/// What is at the path of a socket that can be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketPath {
    /// Nothing.
    Empty,
    /// A socket file that nobody answers on.
    Stale,
}

/// Looks at the path of a unix socket, and changes nothing.
///
/// # Errors
/// `AddrInUse` when somebody answers there, `AlreadyExists` when it is some other file.
pub(crate) async fn socket_path(path: &Path) -> io::Result<SocketPath> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SocketPath::Empty),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let why = format!("{} is there already and is no socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    // Only a refusal proves that nobody listens: a full queue or a lack of rights does not.
    match timeout(ANSWER_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(SocketPath::Stale),
        Ok(Ok(_) | Err(_)) | Err(_) => {
            let why = format!("another process listens on {}", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, why))
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the mode of the unbound socket, so there is no moment at which others may connect.
    let unbound = File::from(OwnedFd::from(socket));
    unbound.set_permissions(Permissions::from_mode(SOCKET_MODE))?;
    let socket = Socket::from(OwnedFd::from(unbound));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.into(), identity: identity(&fs::symlink_metadata(path)?) };
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
    Ok((listener, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::TempDir;

    async fn bind(path: &Path) -> io::Result<ControlListener> {
        let address = ControlAddr::Unix(path.into());
        Ok(ControlListener::bind(&address).await?.expect("it is not off"))
    }

    #[tokio::test]
    async fn a_unix_socket_is_for_its_owner_and_leaves_no_file() {
        let dir = TempDir::new();
        let path = dir.path("control.sock");
        let listener = bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(listener.address(), ControlAddr::Unix(path.clone()));
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let dir = TempDir::new();
        let path = dir.path("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket that nobody answers on");
        let first = bind(&path).await.unwrap();
        assert_eq!(bind(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        fs::write(&path, "notes").unwrap();
        assert_eq!(bind(&path).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "notes");
    }

    #[tokio::test]
    async fn the_file_of_a_successor_is_left_alone() {
        let dir = TempDir::new();
        let path = dir.path("control.sock");
        let first = bind(&path).await.unwrap();
        fs::rename(&path, dir.path("moved.sock")).unwrap();
        let second = bind(&path).await.unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(second);
        assert!(!path.exists());
    }
}
