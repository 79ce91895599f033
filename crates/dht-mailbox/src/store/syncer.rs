//! The thread that waits for the device, so that the writer need not.

use std::{io, sync::Arc, thread::JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::{debt::IndexFile, queue::Queue};
use crate::disk::{Disk, DiskFile};

/// What to make durable, in this order.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Segments.
    pub(super) files: Vec<DiskFile>,
    /// The directory, if segments were made.
    pub(super) names: bool,
    /// The index, once the log it relies on is.
    pub(super) index: Option<Arc<IndexFile>>,
}

/// A thread with room for one job.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    busy: bool,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    writer: Arc<Queue>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Which part of a job failed.
#[derive(Debug)]
pub(super) enum JobError {
    /// The log may not be what it was taken for.
    Log(io::Error),
    /// The log is durable; the index is still owed.
    Index(io::Error),
}

#[derive(Debug, Default)]
struct State {
    job: Option<Job>,
    outcome: Option<Result<(), JobError>>,
    stop: bool,
}

impl Syncer {
    pub(super) fn start(disk: Arc<dyn Disk>, writer: Arc<Queue>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            disk,
            writer,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("mailbox-sync".into())
                .spawn(move || shared.run())?
        };
        Ok(Self {
            shared,
            thread: Some(thread),
            busy: false,
        })
    }

    /// Whether a job is under way or its outcome not taken.
    pub(super) const fn is_busy(&self) -> bool {
        self.busy
    }

    /// Hands over a job; only when not busy.
    pub(super) fn submit(&mut self, job: Job) {
        self.busy = true;
        self.shared.state.lock().job = Some(job);
        self.shared.changed.notify_all();
    }

    /// The outcome of the job, once it is there.
    pub(super) fn poll(&mut self) -> Option<Result<(), JobError>> {
        let outcome = self.shared.state.lock().outcome.take()?;
        self.busy = false;
        Some(outcome)
    }

    /// Waits for the outcome of the job.
    pub(super) fn wait(&mut self) -> Option<Result<(), JobError>> {
        if !self.busy {
            return None;
        }
        let mut state = self.shared.state.lock();
        while state.outcome.is_none() {
            self.shared.changed.wait(&mut state);
        }
        self.busy = false;
        state.outcome.take()
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there was answered as a failed job already.
            let _ = thread.join();
        }
    }
}

impl Job {
    /// Does the work, on whatever thread.
    fn run(self, disk: &dyn Disk) -> Result<(), JobError> {
        for file in &self.files {
            file.sync_data().map_err(JobError::Log)?;
        }
        if self.names {
            disk.sync_names().map_err(JobError::Log)?;
        }
        match &self.index {
            Some(index) => index.settle().map_err(JobError::Index),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.job.take() {
                drop(state);
                let outcome = job.run(&*self.disk);
                state = self.state.lock();
                state.outcome = Some(outcome);
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
