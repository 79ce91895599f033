//! Protocol-agnostic tower pieces: stack builder, byte budget, filter, spy.
