//! Behaviour tests on real parts.

mod vectors;
