//! Protobuf messages of the Tari messaging DHT, with size limits and bounded decoding.
//!
//! The generated types are checked in, so neither protoc nor a build script is needed. Byte fields are
//! [`bytes::Bytes`]: decoding from a `Bytes` slices it and copies nothing.
//!
//! | module | holds | `.proto` |
//! |---|---|---|
//! | [`envelope`] | header and envelope, the unit of the messaging protocol | `dht_envelope` |
//! | [`comms`] | the container inside an envelope's body | `comms_envelope` |
//! | [`message_header`] | first part of an application's message | `dht_message_header` |
//! | [`message_signature`] | content of the header's signature field | `dht_message_signature` |
//! | [`dht`], [`common`] | join and discovery | `dht`, `dht_common` |
//! | [`store_forward`] | store-and-forward request and answer | `dht_store_forward` |
//! | [`identity`] | identity exchange | `comms_identity` |
//! | [`rpc`], [`dht_rpc`] | RPC framing, and the DHT's service | `comms_rpc`, `dht_rpc` |
//!
//! ```
//! use bytes::Bytes;
//! use dht_proto::comms::EnvelopeBody;
//!
//! let body = EnvelopeBody { parts: vec![Bytes::from_static(b"hello")] };
//! let bytes = dht_proto::encode(&body);
//! assert_eq!(dht_proto::decode::<EnvelopeBody>(bytes)?, body);
//! # Ok::<(), dht_proto::DecodeError>(())
//! ```

mod bounded;
pub mod limits;

pub use bounded::{Bounded, DecodeError, Layout, decode, encode};

macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
        #[rustfmt::skip]
        pub mod $name {
            include!(concat!("gen/", stringify!($name), ".rs"));
        }
    )+};
}

generated! {
    /// `tari.comms.envelope`
    comms,
    /// `tari.dht.common`
    common,
    /// `tari.dht`
    dht,
    /// `tari.dht.rpc`
    dht_rpc,
    /// `tari.dht.envelope`
    envelope,
    /// `tari.comms.identity`
    identity,
    /// `tari.dht.message_header`
    message_header,
    /// `tari.dht.message_signature`
    message_signature,
    /// `tari.comms.rpc`
    rpc,
    /// `tari.dht.store_forward`
    store_forward,
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
