//! Changes to a folder.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// Opens a file for reading and writing that only its owner may open; made if it is not there.
pub(crate) fn open_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        if file.metadata()?.permissions() != private {
            file.set_permissions(private)?;
        }
    }
    Ok(file)
}

/// Renames a file so that a power failure leaves it one of its names, and the new one once this returns.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    step();
    fs::rename(from, to)?;
    step();
    // Windows opens no folder as a file, and writes its entries through.
    if cfg!(unix) {
        fs::File::open(folder(to))?.sync_all()?;
    }
    Ok(())
}

/// Removes a file, which need not be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    step();
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Files of which the name is that of `path` and something behind it.
pub(crate) fn count(path: &Path, suffix: &str) -> u64 {
    let Some(name) = path.file_name() else {
        return 0;
    };
    let prefix = format!("{}{suffix}", name.display());
    let names = fs::read_dir(folder(path)).into_iter().flatten().flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .fold(0, |count, _| count + 1)
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The next change to the folder is made: tests see what a crash would leave.
pub(crate) fn step() {
    #[cfg(any(test, feature = "test-util"))]
    STEPS.with_borrow_mut(|watch| {
        if let Some(watch) = watch {
            watch();
        }
    });
}

#[cfg(any(test, feature = "test-util"))]
thread_local! {
    static STEPS: std::cell::RefCell<Option<Box<dyn FnMut()>>> = const { std::cell::RefCell::new(None) };
}

/// Calls `watch` before each change of this thread to a folder.
#[cfg(any(test, feature = "test-util"))]
pub fn watch_steps(watch: Option<Box<dyn FnMut()>>) {
    STEPS.set(watch);
}
