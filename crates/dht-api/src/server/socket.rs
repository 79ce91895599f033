//! The unix socket in the file system.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use super::BindError;
use crate::socket_path::SocketPath;

/// A socket that this process serves; removed when dropped, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at the path: mode 0600 from the beginning, in the place of a socket that no process serves any more.
    pub(super) async fn bind(path: &Path) -> Result<(UnixListener, Self), BindError> {
        let at = path.display().to_string();
        let refused = |source| BindError::io(&at, source);
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(refused)?;
        let mode = fs::metadata(folder).map_err(refused)?.permissions().mode();
        if mode & 0o022 != 0 {
            return Err(BindError::SharedFolder(folder.display().to_string()));
        }
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
        // Bound in a folder of its own, so that no client connects before the mode is set; then moved to its place.
        let private = folder.join(format!(".api-{}", std::process::id()));
        let made = Self::bind_in(&private, path);
        let _left = fs::remove_dir_all(&private);
        made.map_err(refused)
    }

    fn bind_in(private: &Path, path: &Path) -> io::Result<(UnixListener, Self)> {
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
        let file = Self {
            path: path.to_owned(),
            identity: (found.dev(), found.ino()),
        };
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}
