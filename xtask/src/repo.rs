//! Where things are in the checkout.

use std::path::{Path, PathBuf};

/// The root of the workspace this binary was built from.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask/ lies in the workspace root")
        .to_path_buf()
}
