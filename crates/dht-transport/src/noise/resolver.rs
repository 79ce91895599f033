//! The primitives that `snow` asks for: Ristretto255, BLAKE2b and ring's ChaCha20-Poly1305.

use blake2b_simd::State;
use dht_core::{
    PublicKey, SecretKey, SharedEntropy,
    hash::{Hasher256, NOISE_DH},
};
use rand_core::Rng;
use ring::aead::{Aad, LessSafeKey};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::CryptoResolver,
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::Zeroizing;

use super::cipher::{TAG_BYTES, less_safe_key, nonce};

/// Hands `snow` the primitives of this network.
pub(super) struct Resolver {
    pub(super) entropy: SharedEntropy,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Source(self.entropy.rng())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        // The protocol name says 25519, the group is Ristretto255.
        (*choice == DHChoice::Curve25519).then(|| Box::new(Ristretto::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        (*choice == HashChoice::Blake2b).then(|| Box::new(Blake(State::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        (*choice == CipherChoice::ChaChaPoly)
            .then(|| Box::new(ChaChaPoly(less_safe_key(&[0; 32]))) as Box<dyn Cipher>)
    }
}

struct Source<R>(R);

impl<R: Rng + Send + Sync> Random for Source<R> {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

/// Diffie-Hellman as this network does it: the compressed product is hashed under a domain tag.
#[derive(Default)]
struct Ristretto {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Ristretto {
    fn install(&mut self, secret: &SecretKey) {
        self.secret = secret.to_bytes();
        self.public = *secret.public_key().as_bytes();
    }
}

impl Dh for Ristretto {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        PublicKey::LENGTH
    }

    fn priv_len(&self) -> usize {
        SecretKey::LENGTH
    }

    fn set(&mut self, privkey: &[u8]) {
        // `snow` leaves no way to refuse; a bad key stays zero and every later `dh` refuses it.
        if let Ok(secret) = SecretKey::from_bytes(privkey) {
            self.install(&secret);
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut wide = Zeroizing::new([0; 64]);
        rng.try_fill_bytes(&mut *wide)?;
        self.install(&SecretKey::from_uniform_bytes(&*wide).map_err(|_| Error::Dh)?);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let theirs = pubkey.get(..PublicKey::LENGTH).ok_or(Error::Dh)?;
        let theirs = PublicKey::from_bytes(theirs).map_err(|_| Error::Dh)?;
        let ours = SecretKey::from_bytes(&*self.secret).map_err(|_| Error::Dh)?;
        let shared = ours.shared_secret(&theirs);
        // Covers the identity point as their key and the zero scalar as ours.
        if shared.is_zero() {
            return Err(Error::Dh);
        }
        let hashed = Zeroizing::new(Hasher256::new(NOISE_DH).chain(shared.as_bytes()).finish());
        out.get_mut(..hashed.len())
            .ok_or(Error::Dh)?
            .copy_from_slice(&*hashed);
        Ok(())
    }
}

struct Blake(State);

impl Hash for Blake {
    fn name(&self) -> &'static str {
        "BLAKE2b"
    }

    fn block_len(&self) -> usize {
        128
    }

    fn hash_len(&self) -> usize {
        64
    }

    fn reset(&mut self) {
        self.0 = State::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.finalize();
        self.reset();
        if let Some(out) = out.get_mut(..hash.as_bytes().len()) {
            out.copy_from_slice(hash.as_bytes());
        }
    }
}

struct ChaChaPoly(LessSafeKey);

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = less_safe_key(key);
    }

    #[expect(
        clippy::indexing_slicing,
        clippy::expect_used,
        reason = "snow sizes `out` for plaintext and tag, and handshake messages are short"
    )]
    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        out[..plaintext.len()].copy_from_slice(plaintext);
        let tag = self
            .0
            .seal_in_place_separate_tag(
                nonce(counter),
                Aad::from(authtext),
                &mut out[..plaintext.len()],
            )
            .expect("a handshake message is far below ring's limit");
        out[plaintext.len()..plaintext.len() + TAG_BYTES].copy_from_slice(tag.as_ref());
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        counter: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let plaintext = self
            .0
            .open_in_place(nonce(counter), Aad::from(authtext), &mut buffer)
            .map_err(|_| Error::Decrypt)?;
        out.get_mut(..plaintext.len())
            .ok_or(Error::Decrypt)?
            .copy_from_slice(plaintext);
        Ok(plaintext.len())
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn dh_of(secret: u8, public: &[u8; 32]) -> Result<[u8; 32], Error> {
        let mut bytes = [0; 32];
        bytes[0] = secret;
        let mut dh = Ristretto::default();
        dh.set(&bytes);
        let mut out = [0; 56];
        dh.dh(public, &mut out)?;
        Ok(out[..32].try_into().unwrap())
    }

    #[test]
    fn output_is_the_published_one() {
        let mut three = [0; 32];
        three[0] = 3;
        let theirs = SecretKey::from_bytes(&three).unwrap().public_key();
        assert_eq!(
            HEXLOWER.encode(&dh_of(2, theirs.as_bytes()).unwrap()),
            "b1d01a072fd152e587a6958f504b8ec30f47aa81153d88603e1bd269438cce74"
        );
    }

    /// Refused keys: the identity point, the zero scalar and bytes that encode no point.
    #[test]
    fn degenerate_keys_are_refused() {
        let theirs = SecretKey::from_bytes(&[1; 32]).unwrap().public_key();
        assert!(dh_of(2, theirs.as_bytes()).is_ok());
        assert!(dh_of(2, &[0; 32]).is_err(), "identity point");
        assert!(dh_of(0, theirs.as_bytes()).is_err(), "zero scalar");
        assert!(dh_of(2, &[0xff; 32]).is_err(), "not canonical");
    }
}
