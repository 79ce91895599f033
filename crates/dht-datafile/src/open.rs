//! A file that is read once and written from then on.

use std::mem;

use parking_lot::Mutex;
use redb::{Database, ReadTransaction, ReadableDatabase as _, WriteTransaction};

use crate::{
    error::{FileError, contain},
    file::DataFile,
};

/// A file that is read once and written from then on, and opened again after a failure: redb refuses everything until then.
#[derive(Debug)]
pub struct OpenFile {
    file: DataFile,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    status: Status,
    /// The file was begun after it was read, and nothing was written to it.
    is_new: bool,
}

#[derive(Debug)]
enum Status {
    Open(Database),
    Failed,
    Closed,
}

impl OpenFile {
    /// Opens a file, or begins it, and reads it. A damaged one is set aside, and a new one begun.
    ///
    /// # Errors
    /// [`FileError::Locked`] while another handle or process has it open, and others.
    pub fn open<T>(
        file: DataFile,
        read: impl Fn(&ReadTransaction) -> Result<T, FileError>,
    ) -> Result<(Self, T), FileError> {
        let (database, value, _) = open_or_replace(&file, read)?;
        let state = Mutex::new(State {
            status: Status::Open(database),
            is_new: false,
        });
        Ok((Self { file, state }, value))
    }

    /// Commits what `change` writes, durably when it returns. `change` is told whether the file was replaced since it was read,
    /// and has none of the rows that were in it.
    ///
    /// # Errors
    /// Those of `change` and of the disk; [`FileError::Closed`].
    pub fn write(
        &self,
        change: impl FnOnce(&WriteTransaction, bool) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let mut state = self.state.lock();
        let database = match mem::replace(&mut state.status, Status::Failed) {
            Status::Open(database) => database,
            Status::Failed => {
                let (database, (), is_new) = open_or_replace(&self.file, |_| Ok(()))?;
                state.is_new |= is_new;
                database
            }
            Status::Closed => {
                state.status = Status::Closed;
                return Err(FileError::Closed);
            }
        };
        let is_new = state.is_new;
        let written = contain(|| {
            let transaction = database.begin_write()?;
            change(&transaction, is_new)?;
            Ok(transaction.commit()?)
        });
        match written {
            Ok(()) => {
                *state = State {
                    status: Status::Open(database),
                    is_new: false,
                };
                Ok(())
            }
            Err(error) => {
                discard(database);
                Err(error)
            }
        }
    }

    /// Closes the file, so that it can be opened again.
    pub fn close(&self) {
        if let Status::Open(database) = mem::replace(&mut self.state.lock().status, Status::Closed)
        {
            discard(database);
        }
    }

    /// How many files were set aside beside this one.
    #[must_use]
    pub fn damaged_files(&self) -> u64 {
        self.file.damaged_files()
    }
}

/// Opens a file and reads it; answers whether it took the place of a damaged one.
fn open_or_replace<T>(
    file: &DataFile,
    read: impl Fn(&ReadTransaction) -> Result<T, FileError>,
) -> Result<(Database, T, bool), FileError> {
    let begin = |_: &WriteTransaction| Ok::<_, FileError>(());
    // One that was to take its place has no row yet.
    file.recover_or_create(|_| Ok(false), begin)?;
    match open_and_read(file, &read) {
        Ok((database, value)) => Ok((database, value, false)),
        Err(FileError::Damaged(_)) => {
            file.replace(begin)?;
            let (database, value) = open_and_read(file, &read)?;
            Ok((database, value, true))
        }
        Err(error) => Err(error),
    }
}

fn open_and_read<T>(
    file: &DataFile,
    read: impl Fn(&ReadTransaction) -> Result<T, FileError>,
) -> Result<(Database, T), FileError> {
    let database = file.open(true)?;
    match contain(|| read(&database.begin_read()?)) {
        Ok(value) => Ok((database, value)),
        Err(error) => {
            discard(database);
            Err(error)
        }
    }
}

/// Drops a database whose pages may be damaged.
fn discard(database: Database) {
    let _ = contain(|| {
        drop(database);
        Ok::<_, FileError>(())
    });
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use redb::{ReadableTable as _, TableDefinition, TableError};

    use super::*;
    use crate::folder::watch_steps;

    const ROWS: TableDefinition<'_, u64, u64> = TableDefinition::new("rows");

    fn rows(transaction: &ReadTransaction) -> Result<Vec<u64>, FileError> {
        match transaction.open_table(ROWS) {
            Ok(table) => table.iter()?.map(|row| Ok(row?.0.value())).collect(),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn open(path: &Path) -> Result<(OpenFile, Vec<u64>), FileError> {
        OpenFile::open(DataFile::at(path, 1 << 20), rows)
    }

    fn add(file: &OpenFile, row: u64) -> Result<bool, FileError> {
        let mut was_new = false;
        file.write(|transaction, is_new| {
            was_new = is_new;
            transaction.open_table(ROWS)?.insert(row, row)?;
            Ok(())
        })?;
        Ok(was_new)
    }

    /// Also one that nothing was written to, and one that a version before set aside.
    #[test]
    fn damaged_files_are_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file.redb");
        fs::write(home.path().join("file.redb.damaged"), "").unwrap();
        for (number, damaged) in [&b""[..], b"no database", &[0; 9000]]
            .into_iter()
            .enumerate()
        {
            fs::write(&path, damaged).unwrap();
            let (file, found) = open(&path).unwrap();
            assert_eq!(found, []);
            assert!(!add(&file, 7).unwrap());
            assert_eq!(file.damaged_files(), number as u64 + 2);
            drop(file);
            assert_eq!(open(&path).unwrap().1, [7]);
            let aside = home
                .path()
                .join(format!("file.redb.damaged-{}", number + 1));
            assert_eq!(fs::read(aside).unwrap(), damaged);
        }
        // The last is replaced.
        for _ in 0..20 {
            fs::write(&path, "no database").unwrap();
            assert!(open(&path).unwrap().0.damaged_files() <= 17);
        }
    }

    #[test]
    fn a_failed_file_is_opened_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file.redb");
        let (file, _) = open(&path).unwrap();
        add(&file, 1).unwrap();
        let failed = file.write(|_, _| -> Result<(), FileError> { panic!("as redb does") });
        assert!(matches!(failed, Err(FileError::Damaged(_))), "{failed:?}");
        assert!(!add(&file, 2).unwrap(), "the file is whole");
        file.write(|_, _| Err(FileError::Closed)).unwrap_err();
        fs::write(&path, "damaged while it was not open").unwrap();
        let failed = file.write(|_, is_new| {
            assert!(is_new);
            Err(FileError::Closed)
        });
        failed.unwrap_err();
        assert!(add(&file, 3).unwrap(), "until it was written");
        assert!(!add(&file, 4).unwrap());
        file.close();
        assert!(matches!(add(&file, 5), Err(FileError::Closed)));
        assert_eq!(open(&path).unwrap().1, [3, 4]);
        assert_eq!(file.damaged_files(), 1);
    }

    /// A crash before each change to the folder, when a file is begun and when it is replaced.
    #[test]
    fn crashes_leave_a_whole_file() {
        use std::{cell::Cell, rc::Rc};
        let home = tempfile::tempdir().unwrap();
        let (path, copies) = (home.path().join("file.redb"), tempfile::tempdir().unwrap());
        let steps = Rc::new(Cell::new(0));
        let (from, to, count) = (
            home.path().to_owned(),
            copies.path().to_owned(),
            Rc::clone(&steps),
        );
        watch_steps(Some(Box::new(move || {
            let copy = to.join(count.get().to_string());
            fs::create_dir(&copy).unwrap();
            for entry in fs::read_dir(&from).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
            count.set(count.get() + 1);
        })));
        drop(open(&path).unwrap());
        fs::write(&path, "no database").unwrap();
        drop(open(&path).unwrap());
        watch_steps(None);
        assert!(steps.get() > 8, "{steps:?}");
        for step in 0..steps.get() {
            let path = copies.path().join(step.to_string()).join("file.redb");
            let (file, _) = open(&path).unwrap();
            add(&file, 1).unwrap();
            assert!(file.damaged_files() < 2);
            assert!(!path.with_extension("redb.new").exists());
        }
    }

    #[test]
    fn open_files_are_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file.redb");
        let (_running, _) = open(&path).unwrap();
        assert!(matches!(open(&path), Err(FileError::Locked)));
        let locked = || DataFile::at(&path, 1 << 20).locked();
        let _name = locked().unwrap();
        assert!(matches!(locked(), Err(FileError::Locked)));
        assert_eq!(damaged_files_in(home.path()), 0);
    }

    fn damaged_files_in(home: &Path) -> usize {
        let names = fs::read_dir(home).unwrap();
        names
            .filter(|it| {
                it.as_ref()
                    .unwrap()
                    .path()
                    .to_string_lossy()
                    .contains("damaged")
            })
            .count()
    }

    /// The disk that holds the file may be missing.
    #[cfg(unix)]
    #[test]
    fn dangling_links_are_no_new_files() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file.redb");
        std::os::unix::fs::symlink(home.path().join("none/file"), &path).unwrap();
        assert!(matches!(open(&path), Err(FileError::Io(_))));
        assert!(path.is_symlink());
    }
}
