//! See `cargo xtask bench --help`.
fn main() {}
