//! `interop`: our nodes and nodes of the reference implementation, over TCP.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use etcetera::BaseStrategy as _;

use crate::{ci::Stopwatch, repo};

/// Let our nodes talk to stock ones, and check what each receives
///
/// The stock nodes are built from the packages of the ordinary registry, once for each lock file and source of
/// `tests/interop/reference`: a few minutes and about 1 GB for each version. Needs protoc, a C compiler and SQLite to build them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask interop                                     every version, a line a scenario\n  \
                        cargo xtask interop --version 1.0.0-rc.5 --filter stored\n  \
                        cargo xtask interop --quick --version 1.0.0-rc.5        as in .ci/run"
)]
pub(crate) struct Interop {
    /// Only this version of the reference implementation
    #[arg(long, value_parser = VERSIONS.map(|version| version.name))]
    version: Option<String>,
    /// Only scenarios whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// With less, and without the slow scenarios
    #[arg(long)]
    quick: bool,
    /// Write what the nodes say to each other to `tests/interop/recordings` instead, which the tests replay
    #[arg(long)]
    record: bool,
    /// Put the results into `docs/compatibility.md`, in the place of those that are there
    #[arg(long, conflicts_with = "quick")]
    report: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Folder of the built stock nodes [default: dht-interop in the user's cache folder]
    #[arg(long, env = "DHT_INTEROP_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// A version of the reference implementation.
struct Version {
    name: &'static str,
    /// Folder of its program in `tests/interop/reference`.
    folder: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        name: "1.0.0-rc.5",
        folder: "rc5",
    },
    Version {
        name: "6.3.0-pre.2",
        folder: "v6",
    },
];

impl Interop {
    pub(crate) fn run(self) -> Result<()> {
        let mut command = repo::cargo([
            "run",
            "--quiet",
            "--package",
            "dht-tests",
            "--bin",
            "interop",
        ]);
        command.arg("--");
        if self.list {
            return repo::run(command.arg("--list"));
        }
        let cache = match self.cache {
            Some(folder) => std::path::absolute(folder)?,
            None => etcetera::choose_base_strategy()?
                .cache_dir()
                .join("dht-interop"),
        };
        let chosen = VERSIONS.iter().filter(|version| {
            let only = self.version.as_deref();
            only.is_none_or(|name| name == version.name)
        });
        for version in chosen {
            let program = version.build(&cache)?;
            command.arg(format!("--stock={}={}", version.name, program.display()));
        }
        command.args(self.filter.map(|filter| format!("--filter={filter}")));
        command.args(self.quick.then_some("--quick"));
        command.args(self.record.then_some("--record=tests/interop/recordings"));
        if self.report {
            command.arg("--report=docs/compatibility.md");
            let reported = VERSIONS.map(|version| format!("--reported={}", version.name));
            command.args(reported);
        }
        repo::run(&mut command)
    }
}

impl Version {
    /// The program of a stock node, built unless it is in the cache.
    fn build(&self, cache: &Path) -> Result<PathBuf> {
        let source = repo::root()
            .join("tests/interop/reference")
            .join(self.folder);
        let program = cache.join(format!("{}-{:016x}", self.name, fingerprint(&source)?));
        if program.exists() {
            return Ok(program);
        }
        check_tools()?;
        fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
        let target = cache.join(format!("target-{}", self.name));
        let clock = Stopwatch::start();
        let mut build = repo::cargo(["build", "--release", "--locked", "--manifest-path"]);
        build
            .arg(source.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target);
        // The flags in the workspace's own configuration are for its own crates.
        repo::run(build.current_dir(cache))?;
        let built = target
            .join("release")
            .join(format!("reference-{}", self.folder));
        // Under its name only when it is whole.
        let part = program.with_extension("part");
        fs::copy(&built, &part).with_context(|| format!("copy {}", built.display()))?;
        fs::rename(&part, &program)?;
        eprintln!("stock node {} built in {}", self.name, clock.elapsed());
        Ok(program)
    }
}

/// A hash of everything in a package that its program depends on.
fn fingerprint(package: &Path) -> Result<u64> {
    let mut files = vec![package.join("Cargo.toml"), package.join("Cargo.lock")];
    for entry in fs::read_dir(package.join("src"))? {
        files.push(entry?.path());
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        (file.file_name(), content).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Fails with what to install unless all is there that stock nodes are built with.
fn check_tools() -> Result<()> {
    let runs = |name: &str| {
        let mut command = Command::new(name);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let mut missing = Vec::new();
    if !runs("protoc") {
        missing.push("protobuf-compiler");
    }
    if !runs("cc") {
        missing.push("gcc");
    } else if !links("-lsqlite3") {
        missing.push("libsqlite3-dev");
    }
    ensure!(
        missing.is_empty(),
        "stock nodes cannot be built: missing, by their Debian names: {0}\n  apt-get install {0}",
        missing.join(" ")
    );
    Ok(())
}

/// Whether the C compiler links a program with this library.
fn links(library: &str) -> bool {
    let mut compiler = Command::new("cc");
    compiler.args(["-x", "c", "-", library, "-o", "/dev/null"]);
    compiler
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = compiler.spawn() else {
        return false;
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A compiler that ends early fails below.
        let _gone = stdin.write_all(b"int main(void) { return 0; }");
    }
    child.wait().is_ok_and(|status| status.success())
}
