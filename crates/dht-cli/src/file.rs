//! Reads files of a home, and says what can be done about those that cannot be used.

use std::{fs, io, path::Path};

use dht_core::is_disk_full;

/// Reads a file whole. A pipe or another file that is not regular is refused: a reader of a pipe waits until somebody writes to it.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(path)?.is_file() {
        true => fs::read(path),
        false => Err(io::Error::other("it is no regular file; move it away")),
    }
}

/// As [`read`], of text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read(path)?);
    text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Explanation of a file that is not found and yet is there: a link to a file that is missing.
pub(crate) fn dangling(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    let (path, target) = (path.display(), target.display());
    Some(format!(
        "{path} is a link to {target}, which is missing; restore that file, or remove the link"
    ))
}

/// Advice on a file of a home that the operating system refuses; goes on behind the error.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if is_disk_full(error) => "; make room on the disk",
        io::ErrorKind::PermissionDenied => {
            "; run as the owner of the home, who must be able to read and write it, or use another --home"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; make the disk writable, or use another --home",
        _ => "",
    }
}
