//! Failures of commands: a text for people and an exit code for scripts.

use std::{io, process::ExitCode};

use crate::file::advice;

/// Exit code of an interrupted command.
pub(crate) const INTERRUPTED: u8 = 130;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Empty if there is nothing to say.
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

    /// The command was called wrongly.
    pub(crate) fn wrong_usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let text = text.trim_end();
        Self::new(
            2,
            match text.strip_prefix("error: ") {
                Some(text) => text.to_owned(),
                // The help of a command that has others.
                None => format!("a command is missing\n\n{text}"),
            },
        )
    }

    /// The command was called with arguments that do not fit the home.
    pub(crate) const fn usage(message: String) -> Self {
        Self::new(2, message)
    }

    /// The operating system refused; with what can be done about it.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::other(format!("{what}: {error}{}", advice(error)))
    }

    /// The configuration is not valid.
    pub(crate) const fn config(message: String) -> Self {
        Self::new(3, message)
    }

    /// The home has no key, or its key file cannot be used.
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
        Self::new(INTERRUPTED, "interrupted".to_owned())
    }

    /// The failure, and what follows from it.
    pub(crate) fn with(self, consequence: &str) -> Self {
        let message = format!("{}; {consequence}", self.message);
        Self { message, ..self }
    }

    /// Whether the user interrupted the command.
    pub(crate) const fn is_interrupted(&self) -> bool {
        self.code == INTERRUPTED
    }

    /// The reader of standard output has read enough: an end, not a failure.
    pub(crate) const fn closed_pipe() -> Self {
        Self::new(0, String::new())
    }

    /// The exit code of the process.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// Text for people; empty if there is nothing to say.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
