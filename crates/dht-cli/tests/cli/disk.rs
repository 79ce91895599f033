//! A disk without room.

use tempfile::TempDir;
use tokio::process::Command;

use crate::{BINARY, run_to, within};

/// No byte can be written to any file: nothing half made is left, and with room again the home is made.
#[cfg(unix)]
#[tokio::test]
async fn init_leaves_nothing_half_made() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("home");
    for args in ["init", "id"] {
        // The signal is ignored, so that writes fail.
        let script = format!("trap '' XFSZ; ulimit -f 0; exec \"$0\" {args} --home \"$1\"");
        let mut command = Command::new("sh");
        let command = command.args(["-c", &script, BINARY]).arg(&home);
        let output = within(command.output()).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("cannot write"), "{error}");
        assert!(!home.exists(), "{args}");
    }
    let (made, _) = run_to(0, &home, &["init"]).await;
    assert!(made.starts_with("made "), "{made}");
}
