//! One writer thread that commits what is queued, together; readers on snapshots.
//!
//! A request is a function on the state in memory that says which rows of the file change. The writer thread runs the
//! requests that wait, writes their changes in one transaction, makes it durable and only then answers. If that
//! fails, the file is opened again and the state is read from it, so that memory never says more than the file.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};
use tokio::sync::{oneshot, watch};
use tracing::{error, warn};

use crate::{
    config::WriterConfig,
    error::SpoolError,
    file::{File, contain, discard, why_not_opened},
    metrics,
    queue::{Place, Queue},
    ticket::Ticket,
};

/// Numbers about the file: what it is, its format, the next id.
pub(crate) const INFO: TableDefinition<'_, &str, u64> = TableDefinition::new("info");
/// Format this version writes, and the newest it reads.
pub(crate) const FORMAT: u64 = 1;

/// What is kept in memory of a file, and how it is kept in the file.
pub(crate) trait State: Sized + Send + 'static {
    /// One row to write or remove.
    type Change: Send;
    type Config: Clone + Send + Sync + 'static;
    /// Label of metrics and logs.
    const NAME: &'static str;
    /// What the file says it is.
    const KIND: u64;

    fn writer(config: &Self::Config) -> &WriterConfig;
    /// Makes the tables in a new file.
    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError>;
    fn load(config: &Self::Config, file: &ReadTransaction) -> Result<Self, SpoolError>;
    /// Adds what every commit writes.
    fn finish(&mut self, changes: &mut Vec<Self::Change>);
    fn write(transaction: &WriteTransaction, changes: Vec<Self::Change>) -> Result<(), SpoolError>;
    /// Takes over what is counted since the file was opened.
    fn carry(&mut self, before: &Self);
    /// The changes so far are durable. Answers the number to publish to those who wait for changes.
    fn committed(&mut self) -> u64;
    /// Copies what can be read of a damaged file. Answers how many rows.
    fn salvage(damaged: &ReadTransaction, into: &WriteTransaction) -> Result<u64, SpoolError>;
}

/// A file, its writer thread and its state in memory. Dropping it commits what is queued.
pub(crate) struct Journal<S: State> {
    shared: Arc<Shared<S>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Shared<S: State> {
    pub(crate) config: S::Config,
    state: Mutex<S>,
    queue: Queue<Box<dyn Request<S>>>,
    /// Held by a handle, not for as long as a transaction; `None` after a failure and once closed.
    database: RwLock<Option<Database>>,
    /// Redb refuses everything after an I/O error, until the file is opened again.
    reopen: AtomicBool,
    damaged: AtomicBool,
    changed: watch::Sender<u64>,
    file: File,
}

/// A queued request.
trait Request<S: State>: Send {
    fn decide(&mut self, state: &mut S, changes: &mut Vec<S::Change>);
    fn answer(self: Box<Self>, committed: Result<(), SpoolError>);
}

struct Pending<F, T> {
    decide: Option<F>,
    value: Result<T, SpoolError>,
    reply: oneshot::Sender<Result<T, SpoolError>>,
}

impl<S, F, T> Request<S> for Pending<F, T>
where
    S: State,
    F: FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError> + Send,
    T: Send,
{
    fn decide(&mut self, state: &mut S, changes: &mut Vec<S::Change>) {
        if let Some(decide) = self.decide.take() {
            self.value = decide(state, changes);
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), SpoolError>) {
        // The caller may have given up the answer.
        let _ = self.reply.send(committed.and(self.value));
    }
}

// === impl Journal ===

impl<S: State> Journal<S> {
    /// Opens the file at `path`; a damaged one is set aside, and what can be read of it is copied.
    pub(crate) fn open(path: &Path, config: S::Config) -> Result<Self, SpoolError> {
        let file = File::at(path, S::writer(&config).cache_bytes)?;
        let loaded = match load_checked::<S>(&file, &config) {
            Err(SpoolError::Damaged) => {
                replace::<S>(&file, &config)?;
                load_checked::<S>(&file, &config)?
            }
            loaded => loaded?,
        };
        Self::start(file, config, loaded)
    }

    /// Opens a file on any backend.
    pub(crate) fn on(file: File, config: S::Config) -> Result<Self, SpoolError> {
        let loaded = load_checked::<S>(&file, &config)?;
        Self::start(file, config, loaded)
    }

    fn start(file: File, config: S::Config, loaded: (Database, S)) -> Result<Self, SpoolError> {
        let (database, mut state) = loaded;
        let shared = Arc::new(Shared {
            queue: Queue::new(S::writer(&config)),
            changed: watch::Sender::new(state.committed()),
            state: Mutex::new(state),
            database: RwLock::new(Some(database)),
            reopen: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            config,
            file,
        });
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("dht-{}", S::NAME))
            .spawn(move || writer.run())?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a request of `bytes` content; waits in the ticket while there is no room.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        bytes: usize,
        decide: impl FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Ticket<T> {
        match self.shared.queue.try_place(bytes) {
            Ok(place) => match self.shared.push(place, decide) {
                Ok(ticket) => ticket,
                Err(error) => Ticket::refused(error),
            },
            Err(SpoolError::Busy) => {
                let shared = Arc::clone(&self.shared);
                Ticket::waiting(async move {
                    match shared.queue.place(bytes).await {
                        Ok(place) => shared.push(place, decide)?.await,
                        Err(error) => Err(shared.reason(error)),
                    }
                })
            }
            Err(error) => Ticket::refused(self.shared.reason(error)),
        }
    }

    /// Queues a request if there is room.
    pub(crate) fn try_submit<T: Send + 'static>(
        &self,
        bytes: usize,
        decide: impl FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<Ticket<T>, SpoolError> {
        match self.shared.queue.try_place(bytes) {
            Ok(place) => self.shared.push(place, decide),
            Err(error) => Err(self.shared.reason(error)),
        }
    }

    /// Looks at the state in memory.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.shared.state.lock())
    }

    /// Reads from a snapshot of the file. Blocks.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        self.shared.read(read)
    }

    pub(crate) fn config(&self) -> &S::Config {
        &self.shared.config
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    pub(crate) fn damaged_files(&self) -> u64 {
        self.shared.file.damaged()
    }

    /// Commits what is queued and closes the file. Blocks.
    pub(crate) fn close(&self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl<S: State> Drop for Journal<S> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<S: State> fmt::Debug for Journal<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(S::NAME).field(&self.shared.file).finish()
    }
}

// === impl Shared ===

impl<S: State> Shared<S> {
    fn push<T: Send + 'static>(
        &self,
        place: Place,
        decide: impl FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<Ticket<T>, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let request = Pending {
            decide: Some(decide),
            value: Err(SpoolError::Closed),
            reply,
        };
        match self.queue.push(Box::new(request), place) {
            Ok(()) => Ok(Ticket::queued(answer)),
            Err(error) => Err(self.reason(error)),
        }
    }

    /// Why it is closed.
    fn reason(&self, error: SpoolError) -> SpoolError {
        match error {
            SpoolError::Closed if self.damaged.load(Ordering::Acquire) => SpoolError::Damaged,
            error => error,
        }
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        let outcome = contain(|| {
            let transaction = match &*self.database.read() {
                Some(database) => database.begin_read()?,
                None if self.reopen.load(Ordering::Acquire) => {
                    return Err(SpoolError::Io(std::io::ErrorKind::Other));
                }
                None => return Err(self.reason(SpoolError::Closed)),
            };
            read(&transaction)
        });
        match &outcome {
            Err(SpoolError::Damaged) => self.end(),
            Err(SpoolError::Io(_) | SpoolError::Database(_) | SpoolError::DiskFull) => {
                self.reopen.store(true, Ordering::Release);
                // Correctness: a request that changes nothing lets the writer open the file again.
                if let Ok(place) = self.queue.try_place(0) {
                    let _ = self.push(place, |_, _| Ok(()));
                }
            }
            _ => {}
        }
        outcome
    }

    /// The writer thread.
    fn run(&self) {
        while let Some(batch) = self.queue.take(S::writer(&self.config)) {
            let (mut requests, places): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let outcome = contain(|| self.commit(&mut requests));
            if let Err(error) = &outcome {
                warn!(spool = S::NAME, %error, requests = requests.len(), "commit failed");
                metrics::failed(S::NAME, error);
            }
            if outcome == Err(SpoolError::Damaged) {
                self.end();
            }
            for request in requests {
                request.answer(outcome.clone());
            }
            drop(places);
        }
        discard(self.database.write().take());
        self.file.release();
    }

    fn commit(&self, requests: &mut [Box<dyn Request<S>>]) -> Result<(), SpoolError> {
        if self.reopen.load(Ordering::Acquire) {
            self.load()?;
        }
        let changes = {
            let mut state = self.state.lock();
            let mut changes = Vec::with_capacity(requests.len().saturating_mul(2));
            for request in requests.iter_mut() {
                request.decide(&mut state, &mut changes);
            }
            state.finish(&mut changes);
            changes
        };
        if !changes.is_empty() {
            metrics::commit(S::NAME, requests.len());
            if let Err(error) = self.write(changes) {
                self.reopen.store(true, Ordering::Release);
                // What the requests changed in memory must go; if this fails, the next commit tries again.
                self.load()?;
                return Err(error);
            }
            let changed = self.state.lock().committed();
            self.changed.send_replace(changed);
        }
        Ok(())
    }

    fn write(&self, changes: Vec<S::Change>) -> Result<(), SpoolError> {
        let database = self.database.read();
        let Some(database) = &*database else {
            return Err(SpoolError::Closed);
        };
        let transaction = database.begin_write()?;
        S::write(&transaction, changes)?;
        Ok(transaction.commit()?)
    }

    /// Opens the file again and reads the state from it.
    fn load(&self) -> Result<(), SpoolError> {
        discard(self.database.write().take());
        let (database, mut loaded) = load::<S>(&self.file, &self.config, false)?;
        {
            let mut state = self.state.lock();
            loaded.carry(&state);
            loaded.committed();
            *state = loaded;
        }
        *self.database.write() = Some(database);
        self.reopen.store(false, Ordering::Release);
        Ok(())
    }

    /// Ends everything: a page is damaged.
    fn end(&self) {
        if !self.damaged.swap(true, Ordering::AcqRel) {
            error!(spool = S::NAME, file = ?self.file, "a page is damaged, the file is closed");
            metrics::failed(S::NAME, &SpoolError::Damaged);
        }
        self.queue.abandon();
    }
}

/// Opens a file and verifies it.
fn load_checked<S: State>(file: &File, config: &S::Config) -> Result<(Database, S), SpoolError> {
    match load(file, config, true) {
        // The check writes to the file; a full disk must not keep a node from starting.
        Err(SpoolError::DiskFull) => load(file, config, false),
        loaded => loaded,
    }
}

/// Sets a damaged file aside and begins a new one with what can be read of it.
fn replace<S: State>(file: &File, config: &S::Config) -> Result<(), SpoolError> {
    let aside = file.set_aside()?;
    metrics::damaged_file(S::NAME);
    match contain(|| salvage::<S>(&aside, file, config)) {
        Ok(rows) => warn!(rows, "rows of the damaged file were kept"),
        Err(SpoolError::Damaged) => warn!("nothing could be read of the damaged file"),
        Err(error) => {
            file.take_back(&aside)?;
            return Err(error);
        }
    }
    Ok(())
}

/// Opens a file, makes its tables if it is new, and reads the state.
fn load<S: State>(
    file: &File,
    config: &S::Config,
    check: bool,
) -> Result<(Database, S), SpoolError> {
    let database = file.open(check)?;
    let state = contain(|| {
        match purpose(&database)? {
            None => {
                let transaction = database.begin_write()?;
                begin::<S>(&transaction)?;
                transaction.commit()?;
                file.sync_name()?;
            }
            Some((kind, _)) if kind != S::KIND => return Err(SpoolError::WrongFile),
            Some((_, found)) if found > FORMAT => {
                return Err(SpoolError::NewerFormat {
                    found,
                    known: FORMAT,
                });
            }
            Some(_) => {}
        }
        S::load(config, &database.begin_read()?)
    });
    match state {
        Ok(state) => Ok((database, state)),
        Err(error) => {
            discard(Some(database));
            Err(error)
        }
    }
}

/// Makes the tables of a new file.
fn begin<S: State>(transaction: &WriteTransaction) -> Result<(), SpoolError> {
    let mut info = transaction.open_table(INFO)?;
    info.insert("kind", S::KIND)?;
    info.insert("format", FORMAT)?;
    S::create(transaction)
}

/// Kind and format of a file; `None` if nothing was written to it.
fn purpose(database: &Database) -> Result<Option<(u64, u64)>, SpoolError> {
    let transaction = database.begin_read()?;
    let info = match transaction.open_table(INFO) {
        Ok(info) => info,
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let other = transaction.list_tables()?.next().is_some();
            return if other {
                Err(SpoolError::WrongFile)
            } else {
                Ok(None)
            };
        }
        Err(error) => return Err(error.into()),
    };
    match (info.get("kind")?, info.get("format")?) {
        (Some(kind), Some(format)) => Ok(Some((kind.value(), format.value()))),
        _ => Err(SpoolError::WrongFile),
    }
}

/// Copies what can be read of a damaged file into a new one.
fn salvage<S: State>(aside: &Path, into: &File, config: &S::Config) -> Result<u64, SpoolError> {
    let damaged = Database::builder()
        .set_cache_size(S::writer(config).cache_bytes)
        .open_read_only(aside)
        .map_err(why_not_opened)?;
    let copied = contain(|| {
        let from = damaged.begin_read()?;
        let fresh = into.open(false)?;
        let transaction = fresh.begin_write()?;
        begin::<S>(&transaction)?;
        let rows = S::salvage(&from, &transaction)?;
        transaction.commit()?;
        into.sync_name()?;
        Ok(rows)
    });
    let _ = contain(|| {
        drop(damaged);
        Ok(())
    });
    copied
}
