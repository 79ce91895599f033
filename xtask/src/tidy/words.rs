//! Names of tests, and comments whose first word says nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Most words in the name of a test, without the ids of behaviours in front (`b001_`, `sf12_`).
const MAX_WORDS: usize = 6;

/// Words that begin a comment without a subject.
const PRONOUNS: [&str; 3] = ["What", "Who", "Whom"];

/// Offending words in the sources below a folder.
#[derive(Default)]
pub(super) struct Words {
    /// Tests with long names, each as `file: name`.
    pub(super) long_names: Vec<String>,
    /// Lines of comments that begin with a pronoun, each as `file:line`.
    pub(super) pronouns: Vec<String>,
}

impl Words {
    pub(super) fn read(&mut self, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    self.read(&path)?;
                }
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("read {}", path.display()))?;
                let path = path.display();
                let names = test_names(&text).filter(|name| words(name) > MAX_WORDS);
                self.long_names
                    .extend(names.map(|name| format!("{path}: {name}")));
                let lines = (1..).zip(text.lines());
                let found = lines.filter(|(_, line)| begins_with_pronoun(line));
                self.pronouns
                    .extend(found.map(|(number, _)| format!("{path}:{number}")));
            }
        }
        Ok(())
    }
}

/// Whether a line is a comment that begins with a pronoun.
fn begins_with_pronoun(line: &str) -> bool {
    let comment = line.trim_start().strip_prefix("//");
    let text = comment.map(|text| text.trim_start_matches(['/', '!']).trim_start());
    let first = text.and_then(|text| text.split_once(' '));
    first.is_some_and(|(word, _)| PRONOUNS.contains(&word))
}

/// The functions that follow `#[test]`, `#[tokio::test]` and the like, inside macros as well.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[test]") || (line.starts_with("#[") && line.contains("::test")) {
            is_test = true;
        }
        let name = line.split_once("fn ")?.1.split(['(', '<']).next()?;
        std::mem::take(&mut is_test).then_some(name)
    })
}

fn words(name: &str) -> usize {
    let is_id = |word: &&str| {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let letters = word.len() - digits.len();
        (1..=2).contains(&letters)
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.split('_').skip_while(is_id).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_front_are_no_words() {
        assert_eq!(words("sf12_b113_repeated_hash_adds_no_row"), 5);
        assert_eq!(words("ipv6_source_is_its_prefix"), 5);
    }

    #[test]
    fn comments_begin_with_a_noun() {
        for line in ["/// What it is.", "  //! Who asks.", "// Whom to ask"] {
            assert!(begins_with_pronoun(line), "{line}");
        }
        for line in [
            "/// Whatever it is.",
            "let x = 1; // What",
            "/// The What.",
            "//",
        ] {
            assert!(!begins_with_pronoun(line), "{line}");
        }
    }

    #[test]
    fn finds_tests_of_every_kind() {
        let text = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test(start_paused = true)]\n#[cfg(unix)]\nasync fn two() {}\n\
                    proptest! {\n    #[test]\n    fn three(x in any::<u8>()) {}\n}\n";
        assert_eq!(
            test_names(text).collect::<Vec<_>>(),
            ["one", "two", "three"]
        );
    }
}
