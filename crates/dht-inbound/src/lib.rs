//! Tower stack that turns received envelopes into delivered messages.
