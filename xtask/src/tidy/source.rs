//! The modules of a crate, as far as names and imports go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta, UseTree, Visibility};

use crate::repo;

/// The library or binary of a package, without tests and generated code.
pub(super) struct Source {
    pub(super) name: String,
    /// Paths from the root of the workspace.
    pub(super) files: Vec<File>,
    modules: BTreeMap<ModulePath, Module>,
}

/// Names from the root of the crate; the root is empty.
type ModulePath = Vec<String>;

/// A source file.
pub(super) struct File {
    path: String,
    text: String,
    syntax: syn::File,
    module: ModulePath,
}

#[derive(Default)]
struct Module {
    file: usize,
    public: bool,
    /// Items that are defined here, and whether they are `pub`.
    items: BTreeMap<String, bool>,
    /// `use` and `pub use`: the name here, what it stands for, and whether it is `pub`.
    imports: Vec<Import>,
}

struct Import {
    /// `None` for a glob.
    name: Option<String>,
    path: ModulePath,
    public: bool,
    /// Has any visibility: only passes the name on, unless the file also uses it.
    passed_on: bool,
}

/// A doc comment of three words or fewer.
pub(super) struct ShortDoc {
    pub(super) file: String,
    pub(super) item: String,
    pub(super) text: String,
    pub(super) is_field: bool,
}

impl Source {
    /// Parses the file that is the root of a target, and every file it declares.
    pub(super) fn read(package: &str, root: &Path) -> Result<Self> {
        let mut source = Self {
            name: package.to_owned(),
            files: Vec::new(),
            modules: BTreeMap::new(),
        };
        source.read_file(root, &root.with_file_name(""), Vec::new(), true)?;
        Ok(source)
    }

    fn read_file(
        &mut self,
        path: &Path,
        children: &Path,
        module: ModulePath,
        public: bool,
    ) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let syntax = syn::parse_file(&text).with_context(|| format!("parse {}", path.display()))?;
        let shown = path.strip_prefix(repo::root()).unwrap_or(path);
        let file = self.files.len();
        self.files.push(File {
            path: shown.display().to_string(),
            text,
            syntax: syntax.clone(),
            module: module.clone(),
        });
        self.read_items(file, &syntax.items, children, module, public)
    }

    fn read_items(
        &mut self,
        file: usize,
        items: &[Item],
        children: &Path,
        path: ModulePath,
        public: bool,
    ) -> Result<()> {
        let mut module = Module {
            file,
            public,
            ..Module::default()
        };
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Mod(it) => {
                    let name = it.ident.to_string();
                    let mut path = path.clone();
                    path.push(name.clone());
                    let public = is_public(&it.vis);
                    let below = children.join(&name);
                    if let Some((_, items)) = &it.content {
                        self.read_items(file, items, &below, path, public)?;
                    } else if let Some(found) = module_file(&below) {
                        self.read_file(&found, &below, path, public)?;
                    } else {
                        // Generated code has its own way of being found.
                        ensure!(!it.attrs.is_empty(), "no file for {}", path.join("::"));
                    }
                }
                Item::Use(it) => {
                    let public = is_public(&it.vis);
                    let passed_on = !matches!(it.vis, Visibility::Inherited);
                    flatten(&it.tree, &mut Vec::new(), &mut |name, path| {
                        module.imports.push(Import {
                            name,
                            path,
                            public,
                            passed_on,
                        });
                    });
                }
                Item::Macro(it) => module.items.extend(defined(it.mac.tokens.clone())),
                item => {
                    if let Some((name, vis)) = named(item) {
                        module.items.insert(name, is_public(vis));
                    }
                }
            }
        }
        self.modules.insert(path, module);
        Ok(())
    }

    /// File → the other files whose items it names. Unless `strict`, a module and the modules inside it do not count:
    /// they may name each other.
    pub(super) fn edges(&self, strict: bool) -> BTreeMap<String, BTreeSet<String>> {
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

    /// `path` as seen from `module`, from the root; `None` if it leads out of the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let mut base = module.to_vec();
        let rest = match first.as_str() {
            "crate" => {
                base.clear();
                rest
            }
            "self" => rest,
            "super" => {
                base.pop()?;
                let supers = rest.iter().take_while(|it| *it == "super").count();
                base.truncate(base.len().checked_sub(supers)?);
                rest.get(supers..)?
            }
            name => {
                base.push(name.to_owned());
                if !self.modules.contains_key(&base) {
                    return None;
                }
                rest
            }
        };
        base.extend_from_slice(rest);
        Some(base)
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

    /// Lines without test modules.
    pub(super) fn lines(&self) -> usize {
        let files = self.files.iter();
        files.map(|file| lines_without_tests(&file.text)).sum()
    }

    /// Every name a user of the crate can write.
    pub(super) fn public_names(&self) -> BTreeSet<String> {
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
    pub(super) fn error_enums(&self) -> usize {
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

    /// Doc comments of three words or fewer.
    pub(super) fn short_docs(&self) -> Vec<ShortDoc> {
        let mut docs = Vec::new();
        for file in &self.files {
            let mut visitor = Docs {
                file: &file.path,
                scope: Vec::new(),
                docs: &mut docs,
            };
            visitor.visit_file(&file.syntax);
        }
        docs
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

struct Docs<'s> {
    file: &'s str,
    scope: Vec<String>,
    docs: &'s mut Vec<ShortDoc>,
}

impl Docs<'_> {
    fn check(&mut self, name: &str, attributes: &[Attribute], is_field: bool) {
        let text = doc(attributes);
        if (1..=3).contains(&text.split_whitespace().count()) {
            let scope = self.scope.iter().map(String::as_str);
            self.docs.push(ShortDoc {
                file: self.file.to_owned(),
                item: scope.chain([name]).collect::<Vec<_>>().join("."),
                text,
                is_field,
            });
        }
    }
}

impl<'s> Visit<'s> for Docs<'_> {
    fn visit_item(&mut self, item: &'s Item) {
        if is_test(attributes(item)) {
            return;
        }
        let name = named(item).map(|(name, _)| name).unwrap_or_default();
        self.check(&name, attributes(item), false);
        self.scope.push(name);
        visit::visit_item(self, item);
        self.scope.pop();
    }

    fn visit_field(&mut self, field: &'s syn::Field) {
        let name = field.ident.as_ref().map(ToString::to_string);
        self.check(&name.unwrap_or_default(), &field.attrs, true);
    }

    fn visit_variant(&mut self, variant: &'s syn::Variant) {
        let name = variant.ident.to_string();
        self.check(&name, &variant.attrs, false);
        self.scope.push(name);
        visit::visit_variant(self, variant);
        self.scope.pop();
    }

    fn visit_impl_item_fn(&mut self, item: &'s syn::ImplItemFn) {
        self.check(&item.sig.ident.to_string(), &item.attrs, false);
    }

    fn visit_impl_item_const(&mut self, item: &'s syn::ImplItemConst) {
        self.check(&item.ident.to_string(), &item.attrs, false);
    }

    fn visit_trait_item_fn(&mut self, item: &'s syn::TraitItemFn) {
        self.check(&item.sig.ident.to_string(), &item.attrs, false);
    }
}

/// `foo.rs`, or `foo/mod.rs`.
fn module_file(below: &Path) -> Option<PathBuf> {
    [below.with_extension("rs"), below.join("mod.rs")]
        .into_iter()
        .find(|path| path.exists())
}

fn flatten(
    tree: &UseTree,
    path: &mut ModulePath,
    found: &mut impl FnMut(Option<String>, ModulePath),
) {
    match tree {
        UseTree::Path(it) => {
            path.push(it.ident.to_string());
            flatten(&it.tree, path, found);
            path.pop();
        }
        UseTree::Name(it) if it.ident == "self" => found(path.last().cloned(), path.clone()),
        UseTree::Name(it) => {
            let name = it.ident.to_string();
            let path = path.iter().cloned().chain([name.clone()]).collect();
            found(Some(name), path);
        }
        UseTree::Rename(it) => {
            let path = path.iter().cloned().chain([it.ident.to_string()]).collect();
            found(Some(it.rename.to_string()), path);
        }
        UseTree::Glob(_) => found(None, path.clone()),
        UseTree::Group(it) => it.items.iter().for_each(|tree| flatten(tree, path, found)),
    }
}

fn named(item: &Item) -> Option<(String, &Visibility)> {
    let (ident, vis) = match item {
        Item::Const(it) => (&it.ident, &it.vis),
        Item::Enum(it) => (&it.ident, &it.vis),
        Item::Fn(it) => (&it.sig.ident, &it.vis),
        Item::Static(it) => (&it.ident, &it.vis),
        Item::Struct(it) => (&it.ident, &it.vis),
        Item::Trait(it) => (&it.ident, &it.vis),
        Item::Type(it) => (&it.ident, &it.vis),
        Item::Union(it) => (&it.ident, &it.vis),
        _ => return None,
    };
    Some((ident.to_string(), vis))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// The types that `pin_project! { … }`, `bitflags! { … }` and the like define.
fn defined(stream: TokenStream) -> Vec<(String, bool)> {
    let mut types = Vec::new();
    let (mut public, mut keyword) = (false, false);
    for token in stream {
        match token {
            TokenTree::Ident(ident) if keyword => {
                types.push((ident.to_string(), public));
                (public, keyword) = (false, false);
            }
            TokenTree::Ident(ident) if ident == "pub" => public = true,
            TokenTree::Ident(ident) => keyword = ident == "struct" || ident == "enum",
            _ => {}
        }
    }
    types
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

/// `#[cfg(test)]`, `#[cfg(any(test, feature = "test-util"))]`.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = tokens(attribute);
        let mut words = text.split(' ');
        attribute.path().is_ident("cfg")
            && words.any(|word| word == "test")
            && !text.contains("not (")
    })
}

/// What stands in the brackets behind the attribute's name, words apart.
fn tokens(attribute: &Attribute) -> String {
    let Meta::List(list) = &attribute.meta else {
        return String::new();
    };
    list.tokens
        .to_string()
        .replace([',', '(', ')'], " ")
        .replace("not ", "not (")
}

fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(it) if it.path.is_ident("doc") => match &it.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
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
