//! One writer thread that commits what is queued, together; readers on snapshots.
//!
//! A request is a function on the state in memory that says which rows change. The writer thread runs the requests that
//! wait, commits their changes together and only then answers. If that fails, the state is loaded from the store again,
//! so that memory never says more than the store. The store is a file (feature `redb`), or memory: then there is no writer
//! thread, and a request runs on the caller's.

mod memory;
mod state;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use memory::Memory;
use parking_lot::Mutex;
pub(crate) use state::{Ids, State, Store};
use tokio::sync::{oneshot, watch};
use tracing::error;
#[cfg(feature = "redb")]
use tracing::warn;

#[cfg(feature = "redb")]
use crate::error::contain;
use crate::{
    error::SpoolError,
    metrics,
    queue::{Place, Queue},
    ticket::Ticket,
};

/// A store, its writer thread and its state in memory. Dropping it commits what is queued.
pub(crate) struct Journal<S: State> {
    shared: Arc<JournalCore<S>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct JournalCore<S: State> {
    pub(crate) config: S::Config,
    state: Mutex<S>,
    queue: Queue<Box<dyn Request<S>>>,
    store: Box<dyn Store<S>>,
    /// Requests run on the caller's thread.
    in_memory: bool,
    /// The journal has ended before it was closed: a page is damaged, or the writer thread panicked.
    failed: watch::Sender<bool>,
    /// The last commit failed, as on a full disk.
    last_commit_failed: AtomicBool,
    changed: watch::Sender<u64>,
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
    /// Rows that end with the process.
    pub(crate) fn in_memory(config: S::Config) -> Self {
        let state = S::new(&config);
        Self {
            shared: JournalCore::new(Box::new(Memory::new()), config, state, true),
            thread: Mutex::new(None),
        }
    }

    /// Starts the writer of a store in this state.
    #[cfg(feature = "redb")]
    pub(crate) fn start(
        store: Box<dyn Store<S>>,
        config: S::Config,
        state: S,
    ) -> Result<Self, SpoolError> {
        let shared = JournalCore::new(store, config, state, false);
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("dht-{}", S::NAME))
            .spawn(move || {
                // A thread that panics must not leave callers waiting.
                let ran = contain(|| {
                    writer.run();
                    Ok(())
                });
                if ran.is_err() {
                    writer.end();
                }
            })?;
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
        self.queue(false, bytes, decide)
    }

    /// As [`submit`](Self::submit); the request waits up to 5 ms for others to be committed with.
    pub(crate) fn submit_delayed<T: Send + 'static>(
        &self,
        bytes: usize,
        decide: impl FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Ticket<T> {
        self.queue(true, bytes, decide)
    }

    fn queue<T: Send + 'static>(
        &self,
        may_wait: bool,
        bytes: usize,
        decide: impl FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Ticket<T> {
        if self.shared.in_memory {
            return Ticket::ready(self.shared.run_now(decide));
        }
        match self.shared.queue.try_place(bytes) {
            Ok(place) => match self.shared.push(place, may_wait, decide) {
                Ok(ticket) => ticket,
                Err(error) => Ticket::ready(Err(error)),
            },
            Err(SpoolError::Busy) => {
                let shared = Arc::clone(&self.shared);
                Ticket::waiting(async move {
                    match shared.queue.place(bytes).await {
                        Ok(place) => shared.push(place, may_wait, decide)?.await,
                        Err(error) => Err(shared.reason(error)),
                    }
                })
            }
            Err(error) => Ticket::ready(Err(self.shared.reason(error))),
        }
    }

    /// Queues a request if there is room.
    pub(crate) fn try_submit<T: Send + 'static>(
        &self,
        bytes: usize,
        decide: impl FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<Ticket<T>, SpoolError> {
        if self.shared.in_memory {
            return Ok(Ticket::ready(self.shared.run_now(decide)));
        }
        match self.shared.queue.try_place(bytes) {
            Ok(place) => self.shared.push(place, false, decide),
            Err(error) => Err(self.shared.reason(error)),
        }
    }

    /// Looks at the state in memory.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.shared.state.lock())
    }

    /// Reads rows as a commit left them. Blocks.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&S::Rows) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        self.shared.read(read)
    }

    pub(crate) fn config(&self) -> &S::Config {
        &self.shared.config
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Ends once the journal has ended for good without being closed.
    pub(crate) fn failed(&self) -> impl Future<Output = ()> + Send + use<S> {
        let mut failed = self.shared.failed.subscribe();
        async move {
            if failed.wait_for(|failed| *failed).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Whether calls wait for a device.
    pub(crate) fn blocks(&self) -> bool {
        !self.shared.in_memory
    }

    pub(crate) fn damaged_files(&self) -> u64 {
        self.shared.store.damaged_files()
    }

    /// Whether the last commit failed, as on a full disk.
    pub(crate) fn last_commit_failed(&self) -> bool {
        self.shared.last_commit_failed.load(Ordering::Relaxed)
    }

    /// Commits what is queued and closes the store. Blocks.
    pub(crate) fn close(&self) {
        self.shared.queue.close();
        if self.shared.in_memory {
            self.shared.store.close();
        }
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
        f.debug_tuple(S::NAME).finish_non_exhaustive()
    }
}

// === impl JournalCore ===

impl<S: State> JournalCore<S> {
    fn new(
        store: Box<dyn Store<S>>,
        config: S::Config,
        mut state: S,
        in_memory: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(S::writer(&config)),
            changed: watch::Sender::new(state.committed()),
            state: Mutex::new(state),
            store,
            in_memory,
            failed: watch::Sender::new(false),
            last_commit_failed: AtomicBool::new(false),
            config,
        })
    }

    /// Runs a request of a journal in memory.
    fn run_now<T>(
        &self,
        decide: impl FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        if self.queue.is_closed() {
            return Err(SpoolError::Closed);
        }
        // Correctness: the lock is held until the rows are changed, so that no id is published before its row is there.
        let mut state = self.state.lock();
        let mut changes = Vec::new();
        let value = decide(&mut state, &mut changes);
        state.finish(&mut changes);
        if !changes.is_empty() {
            metrics::commit(S::NAME, 1);
            self.store.commit(changes, None)?;
            let changed = state.committed();
            drop(state);
            self.changed.send_replace(changed);
        }
        value
    }

    fn push<T: Send + 'static>(
        &self,
        place: Place,
        may_wait: bool,
        decide: impl FnOnce(&mut S, &mut Vec<S::Change>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<Ticket<T>, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let request = Pending {
            decide: Some(decide),
            value: Err(SpoolError::Closed),
            reply,
        };
        match self.queue.push(Box::new(request), place, may_wait) {
            Ok(()) => Ok(Ticket::queued(answer)),
            Err(error) => Err(self.reason(error)),
        }
    }

    /// Why it is closed.
    fn reason(&self, error: SpoolError) -> SpoolError {
        match error {
            SpoolError::Closed if *self.failed.borrow() => SpoolError::Damaged,
            error => error,
        }
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&S::Rows) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        let (mut read, mut value) = (Some(read), None);
        let outcome = self.store.read(&mut |rows| {
            if let Some(read) = read.take() {
                value = Some(read(rows)?);
            }
            Ok(())
        });
        match outcome {
            Ok(()) => value.ok_or(SpoolError::Closed),
            Err(SpoolError::Damaged) => {
                self.end();
                Err(SpoolError::Damaged)
            }
            Err(error) => {
                if self.store.has_failed()
                    && let Ok(place) = self.queue.try_place(0)
                {
                    // Correctness: a request that changes nothing lets the writer load the state again.
                    let _ = self.push(place, false, |_, _| Ok(()));
                }
                Err(self.reason(error))
            }
        }
    }

    /// Ends everything: a page is damaged.
    fn end(&self) {
        if !self.failed.send_replace(true) {
            error!(spool = S::NAME, "a page is damaged, the file is closed");
            metrics::failed(S::NAME, &SpoolError::Damaged);
        }
        self.queue.abandon();
    }
}

/// The writer thread.
#[cfg(feature = "redb")]
impl<S: State> JournalCore<S> {
    /// The writer thread.
    fn run(&self) {
        while let Some(batch) = self.queue.take(S::writer(&self.config)) {
            let (mut requests, places): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let outcome = contain(|| self.commit(&mut requests));
            self.last_commit_failed
                .store(outcome.is_err(), Ordering::Relaxed);
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
        self.store.close();
    }

    fn commit(&self, requests: &mut [Box<dyn Request<S>>]) -> Result<(), SpoolError> {
        if self.store.has_failed() {
            self.load()?;
        }
        let (changes, next) = {
            let mut state = self.state.lock();
            let mut changes = Vec::with_capacity(requests.len().saturating_mul(2));
            for request in requests.iter_mut() {
                request.decide(&mut state, &mut changes);
            }
            state.finish(&mut changes);
            (changes, state.ids().unsaved())
        };
        if !changes.is_empty() {
            metrics::commit(S::NAME, requests.len());
            if let Err(error) = self.store.commit(changes, next) {
                // Changes of the requests in memory must go; if this fails, the next commit tries again.
                self.load()?;
                return Err(error);
            }
            let changed = self.state.lock().committed();
            self.changed.send_replace(changed);
        }
        Ok(())
    }

    /// Loads the state from the store again.
    fn load(&self) -> Result<(), SpoolError> {
        let next_id = self.state.lock().ids().next();
        let mut loaded = self.store.load(&self.config, next_id)?;
        let mut state = self.state.lock();
        loaded.carry(&state);
        loaded.committed();
        *state = loaded;
        Ok(())
    }
}
