//! Protobuf messages of the Tari messaging DHT, with size limits and bounded decoding.
