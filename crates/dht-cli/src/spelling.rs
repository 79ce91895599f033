//! Suggestions for mistyped words.

/// The word that is most like `word`, if one is.
pub(crate) fn closest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let like = |other: &&str| strsim::jaro_winkler(word, other);
    let found = words
        .into_iter()
        .max_by(|a, b| like(a).total_cmp(&like(b)))?;
    (like(&found) > 0.75).then_some(found)
}
