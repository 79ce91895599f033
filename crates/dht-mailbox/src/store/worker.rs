//! A thread that waits for the device, so that the writer need not.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex};

use super::queue::Queue;

/// Work for another thread; its outcome is a number of bytes.
pub(super) type Job = Box<dyn FnOnce() -> io::Result<u64> + Send>;

/// Room for one job.
pub(super) enum Worker {
    Thread(WorkerThread),
    /// Does each job as it is handed over, for a disk that makes nobody wait.
    Inline(Option<io::Result<u64>>),
}

pub(super) struct WorkerThread {
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
    busy: bool,
}

struct Slot {
    writer: Arc<Queue>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    outcome: Option<io::Result<u64>>,
    stop: bool,
}

impl Worker {
    /// A worker for a disk that `blocks` or not; `writer` is woken when a job is done.
    pub(super) fn start(name: &str, writer: &Arc<Queue>, blocks: bool) -> io::Result<Self> {
        Ok(match blocks {
            true => Self::Thread(WorkerThread::start(name, Arc::clone(writer))?),
            false => Self::Inline(None),
        })
    }

    /// Whether a job is under way or its outcome not taken.
    pub(super) const fn is_busy(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.busy,
            Self::Inline(outcome) => outcome.is_some(),
        }
    }

    /// Hands over a job; only when not busy.
    pub(super) fn submit(&mut self, job: Job) {
        match self {
            Self::Thread(thread) => thread.submit(job),
            Self::Inline(outcome) => *outcome = Some(job()),
        }
    }

    /// The outcome of the job, once it is there.
    pub(super) fn poll(&mut self) -> Option<io::Result<u64>> {
        match self {
            Self::Thread(thread) => thread.poll(),
            Self::Inline(outcome) => outcome.take(),
        }
    }

    /// Waits for the outcome of the job, if one is under way.
    pub(super) fn wait(&mut self) -> Option<io::Result<u64>> {
        match self {
            Self::Thread(thread) => thread.wait(),
            Self::Inline(outcome) => outcome.take(),
        }
    }
}

impl WorkerThread {
    /// Starts the thread; `writer` is woken when a job is done.
    fn start(name: &str, writer: Arc<Queue>) -> io::Result<Self> {
        let slot = Arc::new(Slot {
            writer,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = {
            let slot = slot.clone();
            std::thread::Builder::new()
                .name(name.into())
                .spawn(move || slot.run())?
        };
        Ok(Self {
            slot,
            thread: Some(thread),
            busy: false,
        })
    }

    fn submit(&mut self, job: Job) {
        self.busy = true;
        self.slot.state.lock().job = Some(job);
        self.slot.changed.notify_all();
    }

    fn poll(&mut self) -> Option<io::Result<u64>> {
        let outcome = self.slot.state.lock().outcome.take()?;
        self.busy = false;
        Some(outcome)
    }

    fn wait(&mut self) -> Option<io::Result<u64>> {
        if !self.busy {
            return None;
        }
        let mut state = self.slot.state.lock();
        while state.outcome.is_none() {
            self.slot.changed.wait(&mut state);
        }
        self.busy = false;
        state.outcome.take()
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.slot.state.lock().stop = true;
        self.slot.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A job that panics is a job that failed; the thread itself does nothing that can.
            let _ = thread.join();
        }
    }
}

impl Slot {
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.job.take() {
                drop(state);
                let outcome = catch_unwind(AssertUnwindSafe(job));
                state = self.state.lock();
                state.outcome = Some(outcome.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())));
                self.changed.notify_all();
                self.writer.wake();
            } else if state.stop {
                return;
            } else {
                self.changed.wait(&mut state);
            }
        }
    }
}
