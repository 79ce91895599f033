//! Where things are in the checkout, and how to run cargo on it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The root of the workspace this binary was built from.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// The cargo that runs us, with `arguments`, in the root of the workspace.
pub(crate) fn cargo<S: Into<OsString>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(arguments.into_iter().map(Into::into))
        .current_dir(root());
    command
}

/// Prints the command, runs it, and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command
        .status()
        .with_context(|| format!("start {}", line(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", line(command));
    Ok(())
}

/// Which of a command's two outputs [`tee`] reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// Like [`run`], but hands each line of one output to `each` while passing it on; returns whether it succeeded.
pub(crate) fn tee(
    command: &mut Command,
    output: Output,
    mut each: impl FnMut(&str),
) -> Result<bool> {
    announce(command);
    match output {
        Output::Stdout => command.stdout(Stdio::piped()),
        Output::Stderr => command.stderr(Stdio::piped()),
    };
    let mut child = command
        .spawn()
        .with_context(|| format!("start {}", line(command)))?;
    let pipe: Box<dyn io::Read> = match output {
        Output::Stdout => Box::new(child.stdout.take().context("no standard output")?),
        Output::Stderr => Box::new(child.stderr.take().context("no standard error")?),
    };
    for text in BufReader::new(pipe).split(b'\n') {
        let text = text?;
        let text = String::from_utf8_lossy(&text);
        match output {
            Output::Stdout => writeln!(io::stdout(), "{text}")?,
            Output::Stderr => writeln!(io::stderr(), "{text}")?,
        }
        each(&text);
    }
    Ok(child.wait()?.success())
}

/// `cargo metadata` of the workspace members.
pub(crate) fn metadata() -> Result<Value> {
    let output = cargo(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed");
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}

/// Whether `cargo NAME` can be called.
pub(crate) fn has(name: &str) -> bool {
    cargo([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn announce(command: &Command) {
    eprintln!("$ {}", line(command));
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let settings = command.get_envs().filter_map(|(name, value)| {
        Some(format!(
            "{}='{}'",
            name.to_string_lossy(),
            value?.to_string_lossy()
        ))
    });
    let program = Path::new(command.get_program())
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let arguments = command.get_args().map(|argument| {
        let argument = argument.to_string_lossy();
        if argument.contains([' ', '(', '|', '*']) {
            format!("'{argument}'")
        } else {
            argument.into_owned()
        }
    });
    settings
        .chain([program])
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}
