//! Dial, listen, Noise XX on Ristretto, identity exchange, yamux and the messaging protocol.
