//! Progress of the reader of a pipe: a line that lies in a pipe when its reader ends has reached no reader.

#[cfg(not(target_os = "linux"))]
use std::io;

/// The reader of standard output.
#[derive(Debug, Default)]
pub(super) struct PipeReader {
    /// It let a line lie for some seconds, as a program does that works on another line, or reads when this one has ended.
    /// It is not waited for any more, until it reads.
    #[cfg(target_os = "linux")]
    is_slow: bool,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{io, os::fd::AsFd, time::Duration};

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        fs::{FileType, fstat},
        io::{Errno, ioctl_fionread},
    };

    use super::PipeReader;

    /// Longest time that a line lies unread before its reader counts as slow.
    pub(super) const PATIENCE: Duration = Duration::from_secs(5);
    /// Interval between two looks.
    const PAUSE: Duration = Duration::from_millis(1);

    impl PipeReader {
        /// Waits until a pipe is empty; false if its reader is slow. A reader that was slow before is only waited for
        /// if `again` is set. Anything but a pipe is read at once.
        ///
        /// # Errors
        /// [`io::ErrorKind::BrokenPipe`] if the reader closed it before.
        pub(in super::super) fn wait(&mut self, out: &impl AsFd, again: bool) -> io::Result<bool> {
            if !FileType::from_raw_mode(fstat(out)?.st_mode).is_fifo() {
                return Ok(true);
            }
            let mut waited = Duration::ZERO;
            while ioctl_fionread(out)? > 0 {
                if waited >= PATIENCE || (self.is_slow && !again) {
                    self.is_slow = true;
                    return Ok(false);
                }
                // Nothing but the end of the reader is polled for.
                let mut closed = [PollFd::new(out, PollFlags::empty())];
                let pause = Timespec::try_from(PAUSE).ok();
                match poll(&mut closed, pause.as_ref()) {
                    Ok(0) | Err(Errno::INTR) => waited += PAUSE,
                    // The reader may have read before it ended.
                    Ok(_) if ioctl_fionread(out)? > 0 => {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                    Ok(_) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.is_slow = false;
            Ok(true)
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl PipeReader {
    /// Other systems do not tell what a reader has read: a line that is written counts as read.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    pub(super) fn wait<T>(&mut self, _out: &T, _again: bool) -> io::Result<bool> {
        Ok(true)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{self, Read as _, Write as _};

    use super::*;

    #[test]
    fn unread_lines_of_closed_pipe_reported() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let mut pipe = PipeReader::default();
        writer.write_all(b"one\n").unwrap();
        reader.read_exact(&mut [0; 4]).unwrap();
        assert!(pipe.wait(&writer, false).unwrap());
        writer.write_all(b"two\n").unwrap();
        drop(reader);
        let error = pipe.wait(&writer, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn slow_readers_are_waited_for_once() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let mut pipe = PipeReader { is_slow: true };
        writer.write_all(b"one\n").unwrap();
        assert!(!pipe.wait(&writer, false).unwrap());
        reader.read_exact(&mut [0; 4]).unwrap();
        assert!(pipe.wait(&writer, false).unwrap());
        assert!(!pipe.is_slow);
    }

    /// The end of the reader is noticed only while it is waited for.
    #[test]
    fn slow_readers_are_awaited_again() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut pipe = PipeReader { is_slow: true };
        writer.write_all(b"one\n").unwrap();
        drop(reader);
        assert!(!pipe.wait(&writer, false).unwrap());
        let error = pipe.wait(&writer, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn files_have_no_reader() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\n").unwrap();
        assert!(PipeReader::default().wait(&file, false).unwrap());
    }
}
