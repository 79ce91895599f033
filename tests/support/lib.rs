//! Shared harness of the behaviour tests.
