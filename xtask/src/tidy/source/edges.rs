//! Which files of a crate name items of which others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, Visibility};

use super::{File, Import, ModulePath, Source, attributes, flatten, is_test};

impl Source {
    /// File → the other files whose items it names. Unless `strict`, a module and the modules inside it do not count:
    /// they may name each other.
    pub(crate) fn edges(&self, strict: bool) -> BTreeMap<String, BTreeSet<String>> {
        let mut edges = BTreeMap::new();
        for (index, file) in self.files.iter().enumerate() {
            let mut names = Names {
                source: self,
                module: file.module.clone(),
                paths: Vec::new(),
                words: BTreeSet::new(),
            };
            names.visit_file(&file.syntax);
            let (mut paths, words) = (names.paths, names.words);
            for (module, it) in self.modules.iter().filter(|(_, it)| it.file == index) {
                let used = |import: &&Import| {
                    let named = |name: &String| words.contains(name);
                    !import.passed_on || import.name.as_ref().is_some_and(named)
                };
                paths.extend(
                    it.imports
                        .iter()
                        .filter(used)
                        .filter_map(|import| self.absolute(module, &import.path)),
                );
            }
            let to = paths
                .iter()
                .filter_map(|path| self.file_of(path, 0))
                .filter(|to| *to != index)
                .filter_map(|to| self.files.get(to))
                .filter(|to| strict || !(to.is_above(file) || file.is_above(to)))
                .map(File::short)
                .collect::<BTreeSet<_>>();
            edges.insert(file.short(), to);
        }
        edges
    }

    /// The file that defines what an absolute path names, through re-exports.
    fn file_of(&self, path: &[String], depth: u32) -> Option<usize> {
        if depth > 16 {
            return None;
        }
        let mut at = ModulePath::new();
        for (index, name) in path.iter().enumerate() {
            let below: ModulePath = at.iter().chain([name]).cloned().collect();
            if self.modules.contains_key(&below) {
                at = below;
                continue;
            }
            let module = self.modules.get(&at)?;
            if module.items.contains_key(name) {
                return Some(module.file);
            }
            let rest = path.get(index + 1..)?;
            let follow = |import: &Import, tail: &[String]| {
                let mut target = self.absolute(&at, &import.path)?;
                target.extend_from_slice(tail);
                self.file_of(&target, depth + 1)
            };
            let is_named = |it: &&Import| it.name.as_ref() == Some(name);
            return if let Some(import) = module.imports.iter().find(is_named) {
                follow(import, rest)
            } else {
                let globs = module.imports.iter().filter(|it| it.name.is_none());
                globs
                    .filter_map(|import| follow(import, path.get(index..)?))
                    .next()
            };
        }
        Some(self.modules.get(&at)?.file)
    }

    /// Imports of an item through the root of the crate, which only passes it on: the importing file and the item.
    pub(crate) fn imports_through_root(&self) -> Vec<(String, String)> {
        let root = self.modules.get(&ModulePath::new());
        let passed_on: BTreeSet<_> = root
            .into_iter()
            .flat_map(|root| &root.imports)
            .filter_map(|import| import.name.as_ref())
            .filter(|name| !self.modules.contains_key(std::slice::from_ref(*name)))
            .collect();
        let mut found = Vec::new();
        // The root is the first file.
        for (path, module) in self.modules.iter().filter(|(_, it)| it.file != 0) {
            let paths = module.imports.iter();
            let names = paths
                .filter_map(|import| self.absolute(path, &import.path)?.into_iter().next())
                .filter(|name| passed_on.contains(name));
            if let Some(file) = self.files.get(module.file) {
                found.extend(names.map(|name| (file.short(), name)));
            }
        }
        found
    }
}

impl File {
    fn is_above(&self, other: &Self) -> bool {
        other.module.starts_with(&self.module)
    }

    /// The path without what all files of the crate have in common.
    fn short(&self) -> String {
        let path = PathBuf::from(&self.path).with_extension("");
        let mut parts = path.iter().map(|part| part.to_string_lossy());
        if parts.by_ref().any(|part| part == "src") {
            parts.collect::<Vec<_>>().join("/")
        } else {
            self.path.clone()
        }
    }
}

/// Paths into this crate, and every word used outside of imports.
struct Names<'s> {
    source: &'s Source,
    module: ModulePath,
    paths: Vec<ModulePath>,
    words: BTreeSet<String>,
}

impl Names<'_> {
    fn add(&mut self, path: &[String]) {
        if let Some(path) = self.source.absolute(&self.module, path) {
            self.paths.push(path);
        }
    }

    fn add_tokens(&mut self, stream: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut joined = false;
        for token in stream {
            match token {
                TokenTree::Ident(ident) => {
                    if !joined {
                        self.add(&std::mem::take(&mut path));
                    }
                    self.words.insert(ident.to_string());
                    path.push(ident.to_string());
                    joined = false;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => joined = true,
                token => {
                    self.add(&std::mem::take(&mut path));
                    joined = false;
                    if let TokenTree::Group(group) = token {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add(&path);
    }
}

impl<'s> Visit<'s> for Names<'_> {
    fn visit_item(&mut self, item: &'s Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'s syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_impl_item_fn(&mut self, item: &'s syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    /// Imports at the top are known; those inside functions are paths like any other.
    fn visit_stmt(&mut self, statement: &'s syn::Stmt) {
        if let syn::Stmt::Item(Item::Use(it)) = statement {
            flatten(&it.tree, &mut Vec::new(), &mut |_, path| self.add(&path));
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_visibility(&mut self, _: &'s Visibility) {}

    fn visit_path(&mut self, path: &'s syn::Path) {
        let words: Vec<_> = path
            .segments
            .iter()
            .map(|it| it.ident.to_string())
            .collect();
        self.words.extend(words.first().cloned());
        if words.len() > 1 {
            self.add(&words);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, it: &'s syn::Macro) {
        self.add_tokens(it.tokens.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Import, Module};
    use super::*;

    #[test]
    fn import_through_root_is_found() {
        let file = |path: &str| File {
            path: path.to_owned(),
            text: String::new(),
            syntax: syn::parse_file("").unwrap(),
            module: Vec::new(),
        };
        let module = |file, paths: &[&str]| Module {
            file,
            imports: paths
                .iter()
                .map(|path| Import {
                    name: path.rsplit("::").next().map(str::to_owned),
                    path: path.split("::").map(str::to_owned).collect(),
                    public: false,
                    passed_on: false,
                })
                .collect(),
            ..Module::default()
        };
        let modules = [
            (vec![], module(0, &["a::Item"])),
            (vec!["a".to_owned()], module(1, &["super::Item"])),
            (
                vec!["b".to_owned()],
                module(2, &["crate::Item", "crate::a::Item"]),
            ),
        ];
        let source = Source {
            name: "crate".to_owned(),
            files: ["src/lib.rs", "src/a.rs", "src/b.rs"].map(file).into(),
            modules: modules.into(),
        };
        let item = || "Item".to_owned();
        assert_eq!(
            source.imports_through_root(),
            [("a".to_owned(), item()), ("b".to_owned(), item())]
        );
    }
}
