//! The modules of a crate, as far as names and imports go.

mod counts;
mod docs;
mod edges;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, Meta, UseTree, Visibility};

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

/// Words in the brackets behind the attribute's name.
fn tokens(attribute: &Attribute) -> String {
    let Meta::List(list) = &attribute.meta else {
        return String::new();
    };
    list.tokens
        .to_string()
        .replace([',', '(', ')'], " ")
        .replace("not ", "not (")
}
