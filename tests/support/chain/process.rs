//! A process that is killed and started again.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::SyncSender,
    thread::{self, JoinHandle},
};

use super::{
    life::{Network, Role},
    line::Line,
};

/// One of the three nodes, running or not.
#[derive(Debug)]
pub(super) struct Process {
    role: Role,
    /// The program to start with its arguments; role, network and home are added.
    program: Vec<OsString>,
    network: Network,
    home: PathBuf,
    lines: SyncSender<(Role, Result<Line, String>)>,
    life: Option<Life>,
    /// Whether it has said so in this life.
    pub(super) is_ready: bool,
}

#[derive(Debug)]
struct Life {
    child: Child,
    input: ChildStdin,
    reader: JoinHandle<()>,
}

impl Process {
    pub(super) fn new(
        role: Role,
        program: Vec<OsString>,
        network: Network,
        home: PathBuf,
        lines: SyncSender<(Role, Result<Line, String>)>,
    ) -> Self {
        Self {
            role,
            program,
            network,
            home,
            lines,
            life: None,
            is_ready: false,
        }
    }

    pub(super) fn start(&mut self) -> Result<(), String> {
        let role = self.role;
        let wrong = |error| format!("the {role} does not start: {error}");
        let (program, arguments) = self.program.split_first().ok_or("no program to start")?;
        let mut child = Command::new(program)
            .args(arguments)
            .args([role.to_string(), self.network.to_string()])
            .arg(&self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(wrong)?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let lines = self.lines.clone();
        let reader = thread::spawn(move || {
            // A line is one write, which a kill does not divide.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if lines.send((role, line.parse())).is_err() {
                    return;
                }
            }
        });
        self.life = Some(Life {
            child,
            input,
            reader,
        });
        Ok(())
    }

    /// Kills it without warning. What it said before is in the channel afterwards, for which `drain` makes room.
    pub(super) fn kill(&mut self, mut drain: impl FnMut()) -> Result<(), String> {
        let role = self.role;
        let Some(Life {
            mut child, reader, ..
        }) = self.life.take()
        else {
            return Ok(());
        };
        self.is_ready = false;
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        let killed = child.kill();
        let _reaped = child.wait();
        while !reader.is_finished() {
            drain();
        }
        let _ended = reader.join();
        match ended {
            Some(status) => Err(format!("the {role} ended by itself: {status}")),
            None => killed.map_err(|error| format!("the {role} cannot be killed: {error}")),
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.life.is_some()
    }

    /// Gives it a number.
    pub(super) fn give(&mut self, number: u64) {
        if let Some(life) = &mut self.life {
            // A process that has ended is noticed when it is to be killed.
            let _ended = writeln!(life.input, "{number}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(life) = &mut self.life {
            let _ended = life.child.kill();
            let _reaped = life.child.wait();
        }
    }
}
