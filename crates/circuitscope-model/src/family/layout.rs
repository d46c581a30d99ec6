use super::Findings;
use crate::config::DecoderConfig;
use crate::source::Source;

/// Names of tensors as a whole model stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// What stands before the names of all but the head, with its dot. A checkpoint of the base model lacks it.
    pub(crate) base: &'static str,
    /// The token embedding.
    pub(crate) embedding: &'static str,
    /// The unembedding, which may be tied to it.
    pub(crate) head: &'static str,
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

    /// Brings the configuration's word on tied embeddings in line with what is stored, as transformers 5 does.
    pub(crate) fn settle(
        self,
        config: &mut DecoderConfig,
        source: &Source<'_>,
        findings: &Findings,
    ) {
        source.set_layout(self);
        let Self {
            embedding, head, ..
        } = self;
        if config.tied_embeddings && source.has(head) {
            if !source.has(embedding) {
                source.stands_for(head, embedding);
                findings.note(format!(
                    "the token embedding is stored as {head} alone and taken from there, as config.json ties the two"
                ));
            } else if !source.equal(embedding, head) {
                config.tied_embeddings = false;
                findings.note(format!(
                    "config.json ties the unembedding to the embedding, but {head} is stored with other values: these \
                     count, as in transformers 5"
                ));
            }
        }
    }
}
