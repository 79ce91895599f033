//! Failures of commands: a text for people and an exit code for scripts.

use std::process::ExitCode;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    const fn new(code: u8, message: String) -> Self {
        Self { code, message }
    }

    /// A failure that has no exit code of its own.
    pub(crate) const fn other(message: String) -> Self {
        Self::new(1, message)
    }

    /// The configuration is not valid.
    pub(crate) const fn config(message: String) -> Self {
        Self::new(3, message)
    }

    /// The key file cannot be used.
    pub(crate) const fn key(message: String) -> Self {
        Self::new(4, message)
    }

    /// An address cannot be listened on.
    pub(crate) const fn listen(message: String) -> Self {
        Self::new(5, message)
    }

    /// A peer was not reached.
    pub(crate) const fn unreachable(message: String) -> Self {
        Self::new(6, message)
    }

    /// The user interrupted the command before it was done.
    pub(crate) fn interrupted() -> Self {
        Self::new(130, "interrupted".to_owned())
    }

    /// Prints the message and returns the exit code.
    #[expect(
        clippy::print_stderr,
        reason = "the error of a command goes to standard error"
    )]
    pub(crate) fn report(self) -> ExitCode {
        eprintln!("error: {}", self.message);
        ExitCode::from(self.code)
    }
}
