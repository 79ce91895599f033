//! Costs of the libraries underneath: the floors of all other rows.

use blake2b_simd::Params;
use curve25519_dalek::{
    ristretto::{CompressedRistretto, RistrettoPoint},
    scalar::Scalar,
};
use ring::aead;

use crate::{
    report::{Report, Row},
    sample::{Effort, micros},
};

/// Microseconds of each primitive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floors {
    variable_base: f64,
    fixed_base: f64,
    double_base: f64,
    inversion: f64,
    encode: f64,
    decode: f64,
    hash: PerSize,
    aead: PerSize,
}

/// A cost that is a line through two sizes.
#[derive(Clone, Copy, Debug)]
struct PerSize {
    at_zero: f64,
    per_byte: f64,
}

impl PerSize {
    fn through(small: (f64, f64), large: (f64, f64)) -> Self {
        let per_byte = (large.1 - small.1) / (large.0 - small.0);
        Self {
            at_zero: (small.1 - per_byte * small.0).max(0.0),
            per_byte,
        }
    }

    fn at(self, bytes: usize) -> f64 {
        self.at_zero + self.per_byte * u32::try_from(bytes).map_or(f64::NAN, f64::from)
    }
}

impl Floors {
    /// Two decodings, a double-base multiplication and the binding hash.
    pub(crate) fn verify(&self, body: usize) -> f64 {
        2.0 * self.decode + self.double_base + self.hash.at(body)
    }

    /// Verifying, then one decoding, two multiplications, an inversion, two encodings and the decryption.
    pub(crate) fn open(&self, body: usize) -> f64 {
        self.verify(body)
            + self.decode
            + 2.0 * self.variable_base
            + self.inversion
            + 2.0 * self.encode
            + self.aead.at(body)
    }

    /// Both sides of a Noise XX handshake: two ephemeral keys, three Diffie-Hellman multiplications each with
    /// their encodings, four decodings, and an identity signature checked on each side.
    pub(crate) fn handshake(&self) -> f64 {
        2.0 * self.fixed_base
            + 2.0 * self.encode
            + 6.0 * (self.variable_base + self.encode)
            + 4.0 * self.decode
            + 2.0 * (self.double_base + self.decode + self.encode)
    }

    /// Three fixed-base multiplications and a variable one, four encodings, hash and encryption.
    pub(crate) fn seal(&self, body: usize) -> f64 {
        3.0 * self.fixed_base
            + self.variable_base
            + 4.0 * self.encode
            + self.hash.at(body)
            + self.aead.at(body)
    }
}

/// The back end of curve25519-dalek that runs: `avx512`, `avx2` or `serial`.
///
/// The library does not say; this repeats its choice, which is made from what was compiled in and from what the
/// processor has.
#[expect(
    unexpected_cfgs,
    reason = "the cfg is curve25519-dalek's, set by .cargo/config.toml"
)]
pub(crate) fn backend() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        let compiled = cfg!(curve25519_dalek_backend = "avx512")
            || cfg!(all(
                target_feature = "avx512ifma",
                target_feature = "avx512vl"
            ));
        if compiled
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vl")
        {
            return "avx512";
        }
        let excluded = cfg!(any(
            curve25519_dalek_backend = "serial",
            curve25519_dalek_backend = "fiat"
        ));
        if !excluded && is_x86_feature_detected!("avx2") {
            return "avx2";
        }
    }
    "serial"
}

/// Measures the primitives. They are always measured, because everything is compared with them.
pub(crate) fn run(report: &mut Report, effort: Effort) -> Floors {
    let scalar = Scalar::from_bytes_mod_order_wide(&[7; 64]);
    let other = Scalar::from_bytes_mod_order_wide(&[9; 64]);
    let point = RistrettoPoint::mul_base(&other);
    let encoded = point.compress();

    let floors = Floors {
        variable_base: micros(effort, || point * scalar),
        fixed_base: micros(effort, || RistrettoPoint::mul_base(&scalar)),
        double_base: micros(effort, || {
            RistrettoPoint::vartime_double_scalar_mul_basepoint(&scalar, &point, &other)
        }),
        inversion: micros(effort, || scalar.invert()),
        encode: micros(effort, || point.compress()),
        decode: micros(effort, || CompressedRistretto(encoded.0).decompress()),
        hash: per_size(|bytes| micros(effort, || Params::new().hash_length(32).hash(bytes))),
        aead: per_size(|bytes| {
            let mut buffer = bytes.to_vec();
            micros(effort, || seal_in_place(&mut buffer))
        }),
    };
    for (name, work, value) in [
        (
            "primitive.variable_base",
            "a point times a secret scalar",
            floors.variable_base,
        ),
        (
            "primitive.fixed_base",
            "the base point times a secret scalar",
            floors.fixed_base,
        ),
        (
            "primitive.double_base",
            "a point and the base point, each times a public scalar, added",
            floors.double_base,
        ),
        (
            "primitive.scalar_inversion",
            "the inverse of a scalar",
            floors.inversion,
        ),
        ("primitive.encode", "a point to its 32 bytes", floors.encode),
        ("primitive.decode", "32 bytes to a point", floors.decode),
        (
            "primitive.blake2b_6k",
            "the BLAKE2b-256 hash of 6 016 bytes",
            floors.hash.at(6_016),
        ),
        (
            "primitive.blake2b_64k",
            "the BLAKE2b-256 hash of 65 536 bytes",
            floors.hash.at(65_536),
        ),
        (
            "primitive.aead_6k",
            "6 016 bytes encrypted with ChaCha20-Poly1305",
            floors.aead.at(6_016),
        ),
        (
            "primitive.aead_64k",
            "65 536 bytes encrypted with ChaCha20-Poly1305",
            floors.aead.at(65_536),
        ),
    ] {
        report.row(Row::new(name, "us", work), || value);
    }
    floors
}

fn per_size(mut cost: impl FnMut(&[u8]) -> f64) -> PerSize {
    let mut at = |bytes: usize| (bytes as f64, cost(&vec![3; bytes]));
    PerSize::through(at(6_016), at(65_536))
}

fn seal_in_place(buffer: &mut [u8]) -> Option<aead::Tag> {
    let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &[5; 32]).ok()?;
    let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
    aead::LessSafeKey::new(key)
        .seal_in_place_separate_tag(nonce, aead::Aad::from([1; 32]), buffer)
        .ok()
}
