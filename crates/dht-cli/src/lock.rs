//! One home, one process: the file `lock`.

use std::{
    fs::{self, File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use crate::exit::Failure;

/// Name of the file in a home.
pub(crate) const FILE: &str = "lock";
/// Longest text that is read from the file of another process.
const MAX_TEXT: u64 = 200;

/// Holds a home until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a home for a command.
    pub(crate) fn take(home: &Path, command: &str) -> Result<Self, Failure> {
        let path = home.join(FILE);
        let failed = |error: std::io::Error| {
            Failure::other(format!("cannot lock {}: {error}", path.display()))
        };
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                // The file names the process that holds the lock; on a full disk the name is missing.
                let text = format!("process {} (dht-node {command})\n", std::process::id());
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.write_all(text.as_bytes()));
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(Failure::other(format!(
                "{} holds the home {}; stop it, or use another --home",
                holder(&mut file),
                home.display()
            ))),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// The process that holds the lock, as it wrote.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(MAX_TEXT).read_to_string(&mut text));
    let text = text.trim();
    if read.is_err() || text.is_empty() || text.contains(char::is_control) {
        return "another process".to_owned();
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_learns_of_the_first() {
        let home = tempfile::tempdir().unwrap();
        let first = Lock::take(home.path(), "run").unwrap();
        let refused = format!("{:?}", Lock::take(home.path(), "send").unwrap_err());
        let id = std::process::id();
        assert!(
            refused.contains(&format!("process {id} (dht-node run)")),
            "{refused}"
        );
        drop(first);
        Lock::take(home.path(), "send").unwrap();
    }
}
