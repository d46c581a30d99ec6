/// Names of tensors as a whole model stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What stands before the names of all but the head, with its dot. A checkpoint of the base model lacks it.
    pub base: &'static str,
    /// The token embedding.
    pub embedding: &'static str,
    /// The unembedding, which may be tied to it.
    pub head: &'static str,
}

impl Layout {
    /// Other names that stand for `name`: with or without the prefix of the base model, which transformers puts before
    /// a name or takes from it as the rest needs; and inside a model of several parts, whose text part is
    /// `language_model`.
    pub(crate) fn alternatives(self, name: &str) -> Vec<String> {
        let Self { base, .. } = self;
        let inner = name.strip_prefix(base);
        let other = inner.map_or_else(|| format!("{base}{name}"), str::to_owned);
        let mut names = vec![other, format!("language_model.{name}")];
        names.extend(inner.map(|inner| format!("{base}language_model.{inner}")));
        names
    }
}
