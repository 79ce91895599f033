//! The folder of a node's files: `secret_key`, `config.toml`, `lock`, `addresses`, `claim`.

mod flags;

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser as _},
};
use dht_core::{Address, Claim, Clock as _, Entropy as _, PublicKey, SecretKey};
use dht_node::{Config, OsEntropy, SystemClock};
use zeroize::Zeroizing;

pub(crate) use self::flags::{DialingHome, ListeningHome};

use crate::{
    exit::Failure,
    file::{self, advice, dangling},
    lock::{self, Held, Lock},
    settings::Settings,
};

/// The flag that names a home.
#[derive(Clone, Debug, Args)]
pub(crate) struct Home {
    /// Folder with the key, the configuration and the data of a node; `dht-node init` makes it.
    #[arg(long = "home", env = "DHT_NODE_HOME", value_name = "DIR", default_value_os_t = default_home(),
        value_parser = OsStringValueParser::new().try_map(named))]
    path: PathBuf,
    /// Settings that other flags override.
    #[arg(skip)]
    flags: toml::Table,
}

impl Home {
    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The flag that names this home, as a shell takes it.
    pub(crate) fn flag(&self) -> String {
        format!("--home {}", quoted(&self.path))
    }

    /// Reads the configuration file and the environment, and applies the flags.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        Settings::read(&self.config_path(), self.flags.clone())
    }

    /// The home as its own files and the environment set it.
    pub(crate) fn without_flags(&self) -> Self {
        Self {
            path: self.path.clone(),
            flags: toml::Table::new(),
        }
    }

    /// The settings that flags override.
    pub(crate) const fn flags(&self) -> &toml::Table {
        &self.flags
    }

    /// The settings of the node.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        self.settings().map(|settings| settings.node)
    }

    /// Takes this home, which must be there, for one process.
    pub(crate) fn try_lock(&self, command: &str) -> Result<Result<Lock, Held>, Failure> {
        self.close_folder()?;
        self.check_writable()?;
        Lock::try_take(&self.path, command)
    }

    /// Refuses a folder in which no file can be made, before any part of a node starts in it. A full disk is not refused.
    fn check_writable(&self) -> Result<(), Failure> {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match tempfile::tempfile_in(&self.path) {
            Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => {
                let error = io::Error::from(error.kind());
                Err(cannot("write to", &self.path, &error))
            }
            _ => Ok(()),
        }
    }

    /// The secret key of a home that was made before. A key file that other users can read is refused.
    pub(crate) fn key(&self) -> Result<SecretKey, Failure> {
        if let Some(secret) = self.read_key()? {
            return Ok(secret);
        }
        self.refuse_data_without_key()?;
        Err(Failure::key(format!(
            "{} has no secret_key; make a home with: dht-node init {}",
            self.path.display(),
            self.flag()
        )))
    }

    /// The secret key, which is made on first use: only if the folder holds nothing of a node.
    pub(crate) fn key_or_new(&self) -> Result<SecretKey, Failure> {
        match self.read_key()? {
            Some(secret) => Ok(secret),
            None => self.make_key(),
        }
    }

    fn read_key(&self) -> Result<Option<SecretKey>, Failure> {
        let path = self.key_path();
        let text = match file::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let (path, advice) = (path.display(), advice(&error));
                return Err(Failure::key(format!("cannot read {path}: {error}{advice}")));
            }
        };
        check_private(&path)?;
        let refused =
            |why: &str| Failure::key(format!("{} is not a secret key: {why}", path.display()));
        let text = std::str::from_utf8(&text).map_err(|_| refused("it is not valid UTF-8"))?;
        let secret: SecretKey = text
            .parse()
            .map_err(|error: dht_core::ParseError| refused(&error.to_string()))?;
        if secret.to_bytes().iter().all(|byte| *byte == 0) {
            return Err(refused("it is zero"));
        }
        Ok(Some(secret))
    }

    /// Makes what is missing of key and configuration: all of it or nothing. A configuration that is there stays as it
    /// is; flags that say something else are refused.
    pub(crate) fn make(&self) -> Result<SecretKey, Failure> {
        let (config, settings) = (self.config_path(), self.settings()?);
        let others = settings.changed(&Settings::read(&config, toml::Table::new())?);
        if config.exists() && !others.is_empty() {
            return Err(Failure::usage(format!(
                "{} exists and has another value for {}; edit it",
                config.display(),
                others.join(", ")
            )));
        }
        let text = settings.to_text()?;
        let fresh = !self.path.exists();
        self.make_folder()?;
        let without_config = !config.exists();
        let made = if without_config {
            write(&config, text.as_bytes()).and_then(|()| self.key_or_new())
        } else {
            self.key_or_new()
        };
        if made.is_err() {
            if without_config {
                let _ = fs::remove_file(&config);
            }
            if fresh {
                let _ = fs::remove_dir(&self.path);
            }
        }
        made
    }

    fn make_key(&self) -> Result<SecretKey, Failure> {
        let fresh = !self.path.exists();
        self.make_folder()?;
        let written = self.write_key();
        if written.is_err() && fresh {
            // A folder that is not empty is not removed.
            let _ = fs::remove_dir(&self.path);
        }
        written
    }

    fn write_key(&self) -> Result<SecretKey, Failure> {
        let secret = SecretKey::random(&mut OsEntropy.rng());
        let path = self.key_path();
        let text = Zeroizing::new(data_encoding::HEXLOWER.encode(&*secret.to_bytes()));
        let file = temporary(&path, text.as_bytes())?;
        match file.persist_noclobber(&path) {
            Ok(_) => {
                sync_folder(&self.path);
                tracing::info!(path = %path.display(), "made a secret key");
                Ok(secret)
            }
            // Another process was faster: there is one key.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => self.key(),
            Err(error) => Err(cannot("write", &path, &error.error)),
        }
    }

    /// Files in this folder that belong to a key.
    fn files_of_a_node(&self) -> Result<Vec<String>, Failure> {
        let failed = |error| cannot("read", &self.path, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            // The configuration may be there before the node; names with a dot first are no files of a node.
            if name != "config.toml" && name != lock::FILE && !name.starts_with('.') {
                found.push(name.escape_debug().to_string());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Whether a node was made here.
    pub(crate) fn exists(&self) -> bool {
        self.key_path().exists()
    }

    /// A folder with data of a node and without its key stays as it is.
    fn refuse_data_without_key(&self) -> Result<(), Failure> {
        if self.path.exists() && !self.exists() {
            if let Some(text) = dangling(&self.key_path()) {
                return Err(Failure::key(text));
            }
            let others = self.files_of_a_node()?;
            if !others.is_empty() {
                return Err(Failure::key(format!(
                    "{} holds {} but no secret_key: a new key could not use them; restore the key, or choose another --home",
                    self.path.display(),
                    others.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Makes the folder, for its owner only. One that is there and is no home stays as it is.
    fn make_folder(&self) -> Result<(), Failure> {
        self.refuse_data_without_key()?;
        fs::create_dir_all(&self.path).map_err(|error| cannot("make", &self.path, &error))?;
        self.close_folder()
    }

    /// Closes the folder to other users.
    #[cfg_attr(not(unix), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    fn close_folder(&self) -> Result<(), Failure> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let failed = |error| cannot("protect", &self.path, &error);
            let mut permissions = fs::metadata(&self.path).map_err(failed)?.permissions();
            if permissions.mode() & 0o077 != 0 {
                permissions.set_mode(0o700);
                fs::set_permissions(&self.path, permissions).map_err(failed)?;
                tracing::info!(path = %self.path.display(), "closed the home to other users");
            }
        }
        Ok(())
    }

    /// Where others reach the node of this home: the addresses that a running node claims, else those that one with this
    /// configuration would.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>, Failure> {
        let config = self.config()?;
        let running = file::read_text(&self.addresses_path()).unwrap_or_default();
        let running: Vec<Address> = running
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect();
        Ok(if running.is_empty() {
            config.claimed_addresses(&config.listen)
        } else {
            running
        })
    }

    /// Whether the node that holds this home has come to listen, as against one that still starts.
    pub(crate) fn is_listening(&self) -> bool {
        let written = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        let listening = written(&self.addresses_path());
        listening.is_some() && listening >= written(&self.path.join(lock::FILE))
    }

    /// Writes the addresses that the running node claims to a file, which `id` reads.
    pub(crate) fn write_addresses(&self, addresses: &[Address]) -> Result<(), Failure> {
        let lines: String = addresses
            .iter()
            .map(|address| format!("{address}\n"))
            .collect();
        write(&self.addresses_path(), lines.as_bytes())
    }

    /// Removes the file that [`Home::write_addresses`] wrote.
    pub(crate) fn remove_addresses(&self) {
        // A file that stays does no harm: the next run overwrites it.
        let _ = fs::remove_file(self.addresses_path());
    }

    /// Keeps the claim that the node of this home presents, for [`Home::claim`].
    pub(crate) fn write_claim(&self, claim: &Claim) -> Result<(), Failure> {
        write(&self.claim_path(), &claim.encode())
    }

    /// The claim that a node of this home presented last; `None` if none ran, or the file is damaged.
    pub(crate) fn claim(&self, key: &PublicKey) -> Option<Claim> {
        let path = self.claim_path();
        let bytes = file::read(&path).ok()?;
        let read = Claim::decode(bytes.into())
            .and_then(|claim| claim.verify(key, SystemClock.now()).map(|()| claim));
        read.inspect_err(|error| {
            tracing::warn!(%error, path = %path.display(), "the last claim is not presented");
        })
        .ok()
    }

    fn claim_path(&self) -> PathBuf {
        self.path.join("claim")
    }

    /// Path of the socket on which the node of this home serves its API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("api.sock")
    }

    /// Path of the socket on which a command serves itself while no node runs on this home.
    pub(crate) fn own_socket(&self) -> PathBuf {
        self.path.join(".api.sock")
    }

    /// Path of the file with the secret key.
    pub(crate) fn key_path(&self) -> PathBuf {
        self.path.join("secret_key")
    }

    /// Path of the configuration file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    fn addresses_path(&self) -> PathBuf {
        self.path.join("addresses")
    }
}

/// Writes a file so that it has its old or its new content, whatever happens in between.
fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let file = temporary(path, content)?;
    file.persist(path)
        .map_err(|error| cannot("write", path, &error.error))?;
    if let Some(folder) = path.parent() {
        sync_folder(folder);
    }
    Ok(())
}

/// A file with this content beside `path`, on the device, which only its owner can read; removed unless it is renamed.
fn temporary(path: &Path, content: &[u8]) -> Result<tempfile::NamedTempFile, Failure> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    tempfile::NamedTempFile::new_in(folder)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.as_file().sync_all()?;
            Ok(file)
        })
        .map_err(|error| cannot("write", path, &error))
}

/// Makes a rename durable, where the system can.
fn sync_folder(folder: &Path) {
    // Without it the file is as it was before after a power failure, and whole.
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::io(&format!("cannot {verb} {}", path.display()), error)
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = fs::metadata(path)
        .map_err(|error| cannot("read", path, &error))?
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::key(format!(
        "other users can read {}; run: chmod 600 {}",
        path.display(),
        quoted(path)
    )))
}

#[cfg(not(unix))]
fn check_private(_path: &Path) -> Result<(), Failure> {
    Ok(())
}

/// Refuses the empty name, as of a variable that a shell did not fill: it would be the folder that the command is called in.
fn named(name: OsString) -> Result<PathBuf, &'static str> {
    match name.is_empty() {
        true => Err("it is empty; name a folder, or unset DHT_NODE_HOME for the default one"),
        false => Ok(name.into()),
    }
}

fn default_home() -> PathBuf {
    use etcetera::BaseStrategy as _;
    etcetera::choose_base_strategy().map_or_else(
        |_| PathBuf::from(".dht-node"),
        |base| base.data_dir().join("dht-node"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(path: &Path) -> Home {
        Home {
            path: path.to_owned(),
            flags: toml::Table::new(),
        }
    }

    #[test]
    fn flags_override_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let text = "network = 'esmeralda'\nlisten = []\nmemory_mib = 7";
        fs::write(folder.path().join("config.toml"), text).unwrap();
        let mut home = home(folder.path());
        let config = home.config().unwrap();
        assert_eq!(config.network, dht_core::Network::Esmeralda);
        assert!(config.listen.is_empty());
        let flags = "network = 'localnet'\nlisten = ['/ip4/127.0.0.1/tcp/1']";
        home.flags = flags.parse().unwrap();
        let config = home.config().unwrap();
        assert_eq!(config.network, dht_core::Network::LocalNet);
        let listens_on = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
        assert_eq!((config.listen, config.memory_mib), (listens_on, 7));
    }

    #[test]
    fn a_running_node_names_its_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let configured = home.addresses().unwrap();
        let listening = vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()];
        home.write_addresses(&listening).unwrap();
        assert_eq!(home.addresses().unwrap(), listening);
        home.remove_addresses();
        assert_eq!(home.addresses().unwrap(), configured);
    }

    #[test]
    fn the_key_is_created_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder.path().join("new"));
        let key = home.key_or_new().unwrap().public_key();
        assert_eq!(home.key_or_new().unwrap().public_key(), key);
        assert_eq!(home.key().unwrap().public_key(), key);
    }

    #[test]
    fn hints_quote_the_home() {
        for (path, flag) in [
            ("/srv/a-1.d", "--home /srv/a-1.d"),
            ("my node", "--home 'my node'"),
            ("a'b", r"--home 'a'\''b'"),
            ("$HOME", "--home '$HOME'"),
        ] {
            assert_eq!(home(Path::new(path)).flag(), flag);
        }
        let refused = home(Path::new("/nowhere/my node")).key().unwrap_err();
        let hint = "with: dht-node init --home '/nowhere/my node'";
        assert!(refused.message().ends_with(hint), "{refused}");
    }

    #[test]
    fn data_without_key_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        drop(home.try_lock("run").unwrap().unwrap());
        fs::write(folder.path().join("inbox.redb"), "").unwrap();
        let refused = format!("{:?}", home.key_or_new().unwrap_err());
        assert!(refused.contains("inbox.redb"), "{refused}");
        assert!(!home.key_path().exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_zero_key_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        fs::write(home.key_path(), "0".repeat(64)).unwrap();
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(home.key_path(), private).unwrap();
        let refused = format!("{:?}", home.key_or_new().unwrap_err());
        assert!(refused.contains("it is zero"), "{refused}");
    }
}
