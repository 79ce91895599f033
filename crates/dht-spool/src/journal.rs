//! One writer thread that commits what is queued, together; readers on snapshots.
//!
//! A request is a function on the state in memory that says which rows of the file change. The writer thread runs the
//! requests that wait, writes their changes in one transaction, makes it durable and only then answers. If that
//! fails, the file is opened again and the state is read from it, so that memory never says more than the file.

mod load;
mod state;

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
use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::{oneshot, watch};
use tracing::{error, warn};

use load::{load, load_checked, replace};
pub(crate) use state::{INFO, State};

use crate::{
    error::SpoolError,
    file::{File, contain, discard},
    metrics,
    queue::{Place, Queue},
    ticket::Ticket,
};

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
