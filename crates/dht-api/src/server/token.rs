//! The bearer token of a TCP server.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use data_encoding::HEXLOWER;
use dht_core::{Entropy as _, OsEntropy};
use rand_core::Rng as _;
use subtle::ConstantTimeEq as _;

use super::BindError;

/// Random bytes of a new token.
const TOKEN_BYTES: usize = 32;
/// Text before the token in a header.
const SCHEME: &[u8] = b"Bearer ";
/// Shortest and longest token in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=256;

/// Text that a client shows.
pub(super) struct Token(String);

impl Token {
    /// Reads the file, or makes it with a new token. Only its owner may read it.
    pub(super) fn load_or_make(path: &Path) -> Result<Self, BindError> {
        let at = path.display().to_string();
        let refused = |source| BindError::io(&at, source);
        let found = fs::metadata(path);
        if matches!(&found, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return Self::make(path).map_err(refused);
        }
        // A pipe would hold up its opening.
        if !found.map_err(refused)?.is_file() {
            let message = "it is no regular file; move it away";
            return Err(refused(io::Error::other(message)));
        }
        let file = fs::File::open(path).map_err(refused)?;
        let mode = file.metadata().map_err(refused)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(BindError::SharedToken(at));
        }
        let mut text = String::new();
        let bad = || BindError::BadToken(at.clone());
        match file.take(1024).read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(bad()),
            read => read.map_err(refused)?,
        };
        let token = text.trim();
        let is_printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_printable || !LENGTH.contains(&token.len()) {
            return Err(bad());
        }
        Ok(Self(token.to_owned()))
    }

    fn make(path: &Path) -> io::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        OsEntropy.rng().fill_bytes(&mut bytes);
        let token = HEXLOWER.encode(&bytes);
        // Whole or not at all, and never readable by others.
        let new = path.with_extension("new");
        let _left = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(token.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // A power failure would bring back no token, and the clients have this one.
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => fs::File::open(folder)?.sync_all()?,
            _ => fs::File::open(".")?.sync_all()?,
        }
        Ok(Self(token))
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether a header shows this token. Takes as long for a wrong one as for the right one.
    pub(super) fn is_shown_by(&self, authorization: Option<&[u8]>) -> bool {
        // The scheme's name is in any case: RFC 9110, section 11.1.
        let shown = authorization
            .and_then(|value| value.split_at_checked(SCHEME.len()))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
            .map(|(_, shown)| shown);
        shown.is_some_and(|shown| shown.ct_eq(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
