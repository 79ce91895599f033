//! One home, one process: the file `lock`.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
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

/// Another process holds the lock.
#[derive(Debug)]
pub(crate) struct Held {
    /// The process, as it wrote.
    holder: String,
    home: PathBuf,
}

impl Held {
    /// Whether the process is a node, which holds the lock until it is told to stop.
    pub(crate) fn is_for_long(&self) -> bool {
        ["run", "listen"]
            .iter()
            .any(|command| self.holder.ends_with(&format!("(dht-node {command})")))
    }

    /// The process, as it wrote.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (holder, home) = (&self.holder, self.home.display());
        write!(
            f,
            "{holder} holds the home {home}; stop it, or use another --home"
        )
    }
}

impl Lock {
    /// Takes the lock of a home for a command, if no other process holds it.
    pub(crate) fn try_take(home: &Path, command: &str) -> Result<Result<Self, Held>, Failure> {
        let path = home.join(FILE);
        let what = format!("cannot lock {}", path.display());
        let failed = |error: std::io::Error| Failure::io(&what, &error);
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
                Ok(Ok(Self { _file: file }))
            }
            Err(TryLockError::WouldBlock) => Ok(Err(Held {
                holder: holder(&mut file),
                home: home.to_owned(),
            })),
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
        let take = |command| Lock::try_take(home.path(), command).unwrap();
        let first = take("run").unwrap();
        let held = take("send").unwrap_err();
        let (id, text) = (std::process::id(), held.to_string());
        assert!(
            text.contains(&format!("process {id} (dht-node run)")) && held.is_for_long(),
            "{text}"
        );
        drop(first);
        let _second = take("send").unwrap();
        assert!(!take("run").unwrap_err().is_for_long());
    }
}
