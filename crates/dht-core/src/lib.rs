//! Identity and envelope cryptography of the Tari messaging DHT.
