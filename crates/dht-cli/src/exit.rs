//! What went wrong, for the person and for the shell.

use std::process::ExitCode;

/// A failed command: text for people, a code for scripts.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    const fn new(code: u8, message: String) -> Self {
        Self { code, message }
    }

    /// Anything without a code of its own.
    pub(crate) const fn other(message: String) -> Self {
        Self::new(1, message)
    }

    /// The configuration does not do.
    pub(crate) const fn config(message: String) -> Self {
        Self::new(3, message)
    }

    /// The key file does not do.
    pub(crate) const fn key(message: String) -> Self {
        Self::new(4, message)
    }

    /// An address cannot be listened on.
    pub(crate) const fn listen(message: String) -> Self {
        Self::new(5, message)
    }

    /// The other side was not reached.
    pub(crate) const fn unreachable(message: String) -> Self {
        Self::new(6, message)
    }

    /// Stopped from outside before the work was done.
    pub(crate) fn interrupted() -> Self {
        Self::new(130, "interrupted".to_owned())
    }

    /// Prints the message and gives the code.
    #[expect(clippy::print_stderr, reason = "this is the command's last word")]
    pub(crate) fn report(self) -> ExitCode {
        eprintln!("error: {}", self.message);
        ExitCode::from(self.code)
    }
}
