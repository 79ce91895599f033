//! Rows in memory.

use parking_lot::RwLock;

use super::state::{State, Store};
use crate::error::SpoolError;

/// Rows that end with the process; `None` once closed.
pub(super) struct Memory<S: State>(RwLock<Option<S::Memory>>);

impl<S: State> Memory<S> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Some(S::Memory::default())))
    }
}

impl<S: State> Store<S> for Memory<S> {
    fn read(
        &self,
        read: &mut dyn FnMut(&S::Rows) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        match &*self.0.read() {
            Some(memory) => read(S::rows(memory)),
            None => Err(SpoolError::Closed),
        }
    }

    fn commit(&self, changes: Vec<S::Change>, _: Option<u64>) -> Result<(), SpoolError> {
        let mut memory = self.0.write();
        let memory = memory.as_mut().ok_or(SpoolError::Closed)?;
        for change in changes {
            S::apply(memory, change);
        }
        Ok(())
    }

    fn has_failed(&self) -> bool {
        false
    }

    fn load(&self, _: &S::Config, _: u64) -> Result<S, SpoolError> {
        Err(SpoolError::Closed)
    }

    fn close(&self) {
        self.0.write().take();
    }

    fn damaged_files(&self) -> u64 {
        0
    }
}
