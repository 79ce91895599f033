//! Behaviour tests on real parts.
