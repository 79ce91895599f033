//! The key of an onion service, and its file.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
};

use curve25519_dalek::EdwardsPoint;
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use dht_core::{Address, Entropy};
use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::error::KeyError;

/// Bytes of a key: scalar, then the secret from which nonces are made.
const KEY_BYTES: usize = 64;

/// The secret key of an onion service of version 3, as Tor takes it: an expanded Ed25519 key.
#[derive(Clone)]
pub struct OnionKey(Zeroizing<[u8; KEY_BYTES]>);

impl OnionKey {
    /// A new key.
    #[must_use]
    pub fn random(entropy: &(impl Entropy + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.rng().fill_bytes(&mut *bytes);
        Self::clamped(bytes)
    }

    /// Reads the key in a file, which its owner alone may read; one that is not there is made. Blocks.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read_or_make(path: &Path, entropy: &(impl Entropy + ?Sized)) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::random(entropy);
                key.write(path).map_err(failed)?;
                Ok(key)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The address of the service at this port, `/onion3/…:PORT`.
    #[must_use]
    pub fn address(&self, port: u16) -> Address {
        Address::onion3(&self.public_key(), port)
    }

    /// The name of the service without `.onion`, as Tor prints it.
    pub(crate) fn service_id(&self) -> String {
        let text = self.address(1).to_string();
        let name = text
            .strip_prefix("/onion3/")
            .and_then(|rest| rest.split_once(':'));
        name.map_or_else(String::new, |(name, _)| name.to_owned())
    }

    /// The key as an argument of ADD_ONION.
    pub(crate) fn argument(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(BASE64.encode(&*self.0));
        Zeroizing::new(format!("ED25519-V3:{}", &*encoded))
    }

    fn public_key(&self) -> [u8; 32] {
        let mut scalar = Zeroizing::new([0; 32]);
        if let Some(first) = self.0.first_chunk::<32>() {
            *scalar = *first;
        }
        EdwardsPoint::mul_base_clamped(*scalar)
            .compress()
            .to_bytes()
    }

    fn clamped(mut bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        if let Some([first, .., last]) = bytes.first_chunk_mut::<32>() {
            *first &= 0b1111_1000;
            *last &= 0b0111_1111;
            *last |= 0b0100_0000;
        }
        Self(bytes)
    }

    fn read(path: &Path, file: File) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(KeyError::Exposed(path.to_owned()));
            }
        }
        let not_a_key = || KeyError::NotAKey(path.to_owned());
        let mut text = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES + 2));
        let most = 2 * KEY_BYTES as u64 + 2;
        file.take(most).read_to_end(&mut text).map_err(failed)?;
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim_ascii_end());
        let bytes = Zeroizing::new(bytes.map_err(|_| not_a_key())?);
        let bytes = <[u8; KEY_BYTES]>::try_from(&bytes[..]).map_err(|_| not_a_key())?;
        let key = Self(Zeroizing::new(bytes));
        // Every key that is made is clamped; another would have another address in Tor.
        if *Self::clamped(key.0.clone()).0 != *key.0 {
            return Err(not_a_key());
        }
        Ok(key)
    }

    /// Writes the file whole or not at all, for its owner only.
    fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let text = Zeroizing::new(HEXLOWER.encode(&*self.0));
        let written = options.open(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&new, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

impl fmt::Debug for OnionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnionKey({})", self.service_id())
    }
}

#[cfg(test)]
mod tests {
    use dht_core::SeededEntropy;

    use super::*;

    #[test]
    fn the_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("onion_key");
        let made = OnionKey::read_or_make(&path, &SeededEntropy::new(1)).unwrap();
        let read = OnionKey::read_or_make(&path, &SeededEntropy::new(2)).unwrap();
        assert_eq!(made.service_id(), read.service_id());
        assert_eq!(made.argument(), read.argument());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(made.service_id().len(), 56);
        assert!(!format!("{made:?}").contains(&*made.argument()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let refused = OnionKey::read_or_make(&path, &SeededEntropy::new(2));
            assert!(matches!(refused, Err(KeyError::Exposed(_))));
        }
    }

    #[test]
    fn other_files_are_no_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("onion_key");
        for text in ["", "abc", &"0".repeat(128), &"f".repeat(130)] {
            let key = OnionKey::random(&SeededEntropy::new(1));
            key.write(&path).unwrap();
            fs::write(&path, text).unwrap();
            let refused = OnionKey::read_or_make(&path, &SeededEntropy::new(2));
            assert!(matches!(refused, Err(KeyError::NotAKey(_))), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "it stays");
        }
    }
}
