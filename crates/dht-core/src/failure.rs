//! The text of an error with its causes, and whether it is that of a full disk.

use std::{error::Error, io};

/// The text of an error and of its causes, in one line. A cause whose text the line has already is not repeated.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// Whether the disk has no room for what was written: it is full, or the quota of this user is used up, or the file may not
/// grow.
#[must_use]
pub fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_named_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Outer(&'static str, #[source] io::Error);

        let outer = |text| Outer(text, io::Error::other("disk full"));
        assert_eq!(error_chain(&outer("not written")), "not written: disk full");
        assert_eq!(
            error_chain(&outer("not written: disk full")),
            "not written: disk full"
        );
    }

    #[test]
    fn full_disks_have_three_kinds() {
        use io::ErrorKind as Kind;
        for full in [Kind::StorageFull, Kind::QuotaExceeded, Kind::FileTooLarge] {
            assert!(is_disk_full(&full.into()), "{full}");
        }
        for other in [
            Kind::OutOfMemory,
            Kind::PermissionDenied,
            Kind::ReadOnlyFilesystem,
            Kind::WriteZero,
            Kind::Other,
        ] {
            assert!(!is_disk_full(&other.into()), "{other}");
        }
    }
}
