//! Doc comments of a crate.

use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta};

use super::{Source, attributes, is_test, named};

/// A doc comment of three words or fewer.
pub(crate) struct ShortDoc {
    pub(crate) file: String,
    pub(crate) item: String,
    pub(crate) text: String,
    pub(crate) is_field: bool,
}

impl Source {
    /// Doc comments of three words or fewer.
    pub(crate) fn short_docs(&self) -> Vec<ShortDoc> {
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
