//! A messaging DHT node: composition of the dht crates, and the dht-node binary.
