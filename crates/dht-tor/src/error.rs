//! Errors.

use std::{io, path::PathBuf};

/// Why an onion service is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The connection could not be made, or ended.
    #[error("the control port is not reached: {0}")]
    Io(io::ErrorKind),
    /// An answer took longer than ten seconds.
    #[error("the control port does not answer in time")]
    Timeout,
    /// The other side does not speak the control protocol, or says more than it may.
    #[error("what answers at the control port is not Tor: {0}")]
    Protocol(&'static str),
    /// Tor refuses a command.
    #[error("Tor refuses {command}: {code} {text}")]
    Refused {
        /// First word of the command.
        command: &'static str,
        /// Status of the reply, 400 to 599.
        code: u16,
        /// Text of the reply, escaped, at most 200 characters.
        text: String,
    },
    /// Tor offers no way of authentication that this node has.
    #[error(
        "Tor does not offer SAFECOOKIE: set CookieAuthentication 1 in torrc, or name a password file"
    )]
    NoAuthentication,
    /// Another user may have made the cookie file that the control port names.
    #[error(
        "the control port names the cookie file {}, which another user may have made; if it is Tor's, set tor.cookie_file to it",
        .0.display()
    )]
    UntrustedCookie(PathBuf),
    /// The file with the cookie or the password cannot be read.
    #[error("cannot read {}: {kind}", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Kind of the error of the operating system.
        kind: io::ErrorKind,
    },
    /// The file holds no cookie or password.
    #[error("cannot use {}: {reason}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Reason, in words.
        reason: &'static str,
    },
    /// The service has ended without this node's doing.
    #[error("Tor does not serve the onion service any more")]
    Removed,
}

/// Why the key of an onion service cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot use the onion key {}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is not the key of an onion service", .0.display())]
    NotAKey(PathBuf),
    /// Other users can read the file.
    #[error("other users can read {path}; run: chmod 600 {path}", path = .0.display())]
    Exposed(PathBuf),
}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}
