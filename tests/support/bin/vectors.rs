//! `vectors DIR`: checks every golden vector of a directory.

use std::process::ExitCode;
use std::{env, io};

use dht_tests::vectors::check_directory;

fn main() -> io::Result<ExitCode> {
    let Some(directory) = env::args_os().nth(1) else {
        eprintln!("usage: vectors DIR");
        return Ok(ExitCode::from(2));
    };
    let report = check_directory(directory.as_ref())?;
    println!("{report}");
    let good = report.failed() == 0 && report.passed() > 0;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
