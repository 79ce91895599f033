//! The unix socket in the file system.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{UnixListener, UnixStream},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{BindError, http::Listen};
use crate::socket_path::SocketPath;

/// How often the server looks whether its socket is still there: 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Device and inode of a file.
type Identity = (u64, u64);

/// A socket that this process serves; removed when dropped, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Arc<Mutex<Identity>>,
}

/// Listens at a path, and again if the socket was deleted: clients find a running node by its path.
#[derive(Debug)]
pub(super) struct SocketListener {
    path: PathBuf,
    identity: Arc<Mutex<Identity>>,
    state: tokio::sync::Mutex<Listening>,
}

#[derive(Debug)]
struct Listening {
    listener: UnixListener,
    looks: Interval,
}

impl SocketFile {
    /// Listens at the path: mode 0600 from the beginning, in the place of a socket that no process serves any more.
    pub(super) async fn bind(path: &Path) -> Result<(SocketListener, Self), BindError> {
        let at = path.display().to_string();
        let refused = |source| BindError::io(&at, source);
        let folder = folder(path);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(refused)?;
        check_folder(folder)?;
        // Lent, as the system calls need it.
        let short = SocketPath::new(path).map_err(refused)?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(BindError::NotASocket(at));
            }
            Ok(_) => match UnixStream::connect(&short).await {
                Ok(_served) => return Err(BindError::InUse(at)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(refused(error)),
            },
        }
        let (listener, identity) = bind_at(path).map_err(refused)?;
        let identity = Arc::new(Mutex::new(identity));
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let listener = SocketListener {
            path: path.to_owned(),
            identity: Arc::clone(&identity),
            state: tokio::sync::Mutex::new(Listening { listener, looks }),
        };
        let path = path.to_owned();
        Ok((listener, Self { path, identity }))
    }
}

impl SocketListener {
    /// A new socket in the place of one that was deleted; `None` if it is there, or something else is.
    fn bind_again(&self) -> Result<Option<UnixListener>, BindError> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Ok(None),
        }
        let refused = |source| BindError::io(self.path.display(), source);
        check_folder(folder(&self.path))?;
        let (listener, identity) = bind_at(&self.path).map_err(refused)?;
        *self.identity.lock() = identity;
        Ok(Some(listener))
    }
}

impl Listen for SocketListener {
    type Socket = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        let mut state = self.state.lock().await;
        loop {
            let Listening { listener, looks } = &mut *state;
            tokio::select! {
                accepted = listener.accept() => return Ok(accepted?.0),
                _ = looks.tick() => {}
            }
            let path = self.path.display();
            match self.bind_again() {
                Ok(None) => {}
                Ok(Some(listener)) => {
                    tracing::warn!(%path, "the socket of the API was deleted; it is served again");
                    state.listener = listener;
                }
                // The next look tries it again.
                Err(error) => {
                    tracing::warn!(%path, %error, "the socket of the API was deleted, so that no command finds this node");
                }
            }
        }
    }
}

/// The folder of a path.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Refuses a folder in which other users could replace the socket.
fn check_folder(folder: &Path) -> Result<(), BindError> {
    let metadata = fs::metadata(folder);
    let metadata = metadata.map_err(|source| BindError::io(folder.display(), source))?;
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(BindError::SharedFolder(folder.display().to_string()));
    }
    Ok(())
}

/// Listens at a path. Bound in a folder of its own, so that no client connects before the mode is set; then moved to its
/// place.
fn bind_at(path: &Path) -> io::Result<(UnixListener, Identity)> {
    let private = folder(path).join(format!(".api-{}", std::process::id()));
    let made = bind_in(&private, path);
    let _left = fs::remove_dir_all(&private);
    made
}

fn bind_in(private: &Path, path: &Path) -> io::Result<(UnixListener, Identity)> {
    match fs::remove_dir_all(private) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::DirBuilder::new().mode(0o700).create(private)?,
    }
    let socket = private.join("s");
    let short = SocketPath::new(&socket)?;
    let listener = UnixListener::bind(&short)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    let found = fs::symlink_metadata(&socket)?;
    fs::rename(&socket, path)?;
    Ok((listener, (found.dev(), found.ino())))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        let identity = *self.identity.lock();
        if found.is_ok_and(|found| (found.dev(), found.ino()) == identity) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients that come after the deletion find the node at the same path, and its end removes the new socket.
    #[tokio::test(start_paused = true)]
    async fn deleted_socket_is_served_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let (listener, file) = SocketFile::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let connecting = async {
            loop {
                match UnixStream::connect(&path).await {
                    Ok(connected) => break connected,
                    Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        let (accepted, _connected) = tokio::join!(listener.accept(), connecting);
        accepted.unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.dev(), found.ino()), *file.identity.lock());

        // A file that somebody else has put there stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(listener.bind_again().unwrap().is_none());
        drop(file);
        assert!(path.exists());
    }
}
