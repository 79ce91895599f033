//! Paths of unix sockets, which the system limits to some hundred bytes.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

/// Longest path that is passed to the system as it is, in bytes: Linux takes 107, others 103.
const MAX_BYTES: usize = 103;

/// A path that is short enough for the system while this value lives.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    /// Named in the path.
    _folder: Option<File>,
}

impl SocketPath {
    /// The path itself, or a short one to the same place. Only Linux has one.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let parts = (path.parent(), path.file_name());
        let is_long = path.as_os_str().len() > MAX_BYTES && cfg!(target_os = "linux");
        let ((Some(folder), Some(name)), true) = (parts, is_long) else {
            return Ok(Self {
                path: path.to_owned(),
                _folder: None,
            });
        };
        let folder = File::open(folder)?;
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        Ok(Self {
            path: Path::new(&path).join(name),
            _folder: Some(folder),
        })
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
