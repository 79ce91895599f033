//! How much one read brings.

/// How much one read brings. The first row comes whatever its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Largest number of rows.
    pub rows: usize,
    /// Largest sum of payload bytes.
    pub bytes: usize,
}

impl Default for Limit {
    /// 100 rows, 1 MiB.
    fn default() -> Self {
        Self {
            rows: 100,
            bytes: 1 << 20,
        }
    }
}
