//! Counts of a crate: lines, public names and error enums.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use syn::{Attribute, Item};

use super::{Source, attributes, is_test, tokens};

impl Source {
    /// Places of `select!` without `biased`, by file and line: tokio tries their branches in an order that no seed determines.
    pub(crate) fn unordered_selects(&self) -> Vec<(&str, usize)> {
        let mut found = Vec::new();
        for file in &self.files {
            let mut lines = file.text.lines().enumerate();
            while let Some((number, line)) = lines.next() {
                let code = line.trim_start();
                if code.starts_with("//") || !code.contains("select! {") {
                    continue;
                }
                let mut body = lines.by_ref().map(|(_, line)| line.trim());
                let first = body.find(|line| !line.starts_with("//"));
                if first != Some("biased;") {
                    found.push((file.path.as_str(), number + 1));
                }
            }
        }
        found
    }

    /// Lines without test modules.
    pub(crate) fn lines(&self) -> usize {
        let files = self.files.iter();
        files.map(|file| lines_without_tests(&file.text)).sum()
    }

    /// Every name a user of the crate can write.
    pub(crate) fn public_names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        self.add_names(&[], "", &mut names);
        names
    }

    fn add_names(&self, path: &[String], prefix: &str, names: &mut BTreeSet<String>) {
        let Some(module) = self.modules.get(path) else {
            return;
        };
        let items = module.items.iter().filter(|(_, public)| **public);
        names.extend(items.map(|(name, _)| format!("{prefix}{name}")));
        for import in module.imports.iter().filter(|import| import.public) {
            match &import.name {
                Some(name) => {
                    names.insert(format!("{prefix}{name}"));
                }
                None => {
                    if let Some(from) = self.absolute(path, &import.path) {
                        self.add_names(&from, prefix, names);
                    }
                }
            }
        }
        let below = self.modules.iter().filter(|(below, module)| {
            module.public && below.len() == path.len() + 1 && below.starts_with(path)
        });
        for (below, _) in below {
            if let Some(name) = below.last() {
                self.add_names(below, &format!("{prefix}{name}::"), names);
            }
        }
    }

    /// Enums that derive `thiserror::Error`.
    pub(crate) fn error_enums(&self) -> usize {
        struct Enums(usize);
        impl<'s> Visit<'s> for Enums {
            fn visit_item(&mut self, item: &'s Item) {
                if !is_test(attributes(item)) {
                    visit::visit_item(self, item);
                }
            }
            fn visit_item_enum(&mut self, item: &'s syn::ItemEnum) {
                let derives = item.attrs.iter().filter(|it| it.path().is_ident("derive"));
                let is_error = |it: &Attribute| tokens(it).split(' ').any(|word| word == "Error");
                self.0 += usize::from(derives.into_iter().any(is_error));
            }
        }
        let mut enums = Enums(0);
        for file in &self.files {
            enums.visit_file(&file.syntax);
        }
        enums.0
    }
}

/// Counts on rustfmt: an item ends where a line closes it at its own depth.
fn lines_without_tests(text: &str) -> usize {
    let mut lines = text.lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if !code.starts_with("#[cfg(") || !code.contains("test") || code.contains("not(") {
            count += 1;
            continue;
        }
        let depth = line.len() - code.len();
        let end = format!("{:depth$}}}", "");
        for line in lines.by_ref() {
            let at_depth = line.len() - line.trim_start().len() == depth;
            if line == end || (at_depth && line.ends_with([';', ','])) {
                break;
            }
        }
    }
    count
}
