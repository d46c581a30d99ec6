use tokenizers::AddedToken;

/// What a token is, as llama.cpp counts.
pub(super) const NORMAL: i32 = 1;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// The tokens of a file.
pub(super) struct Vocabulary<'a> {
    pub(super) tokens: &'a [String],
    /// What each is; empty if the file does not say.
    pub(super) kinds: &'a [i32],
}

impl<'a> Vocabulary<'a> {
    pub(super) fn kind(&self, id: usize) -> i32 {
        self.kinds.get(id).copied().unwrap_or(NORMAL)
    }

    /// Tokens with their numbers. Of two with the same text the first counts.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (String, u32)> + use<'a> {
        let tokens = self.tokens.iter().enumerate().rev();
        tokens.map(|(id, token)| (token.clone(), id as u32))
    }

    /// Tokens that are taken whole wherever they stand in a text.
    pub(super) fn whole(&self) -> impl Iterator<Item = (usize, &'a str)> {
        let tokens = self.tokens.iter().enumerate();
        let whole = tokens.filter(|(id, token)| {
            matches!(self.kind(*id), CONTROL | USER_DEFINED) && !token.is_empty()
        });
        whole.map(|(id, token)| (id, token.as_str()))
    }

    pub(super) fn added(&self) -> Vec<AddedToken> {
        self.whole()
            .map(|(id, token)| AddedToken {
                content: token.to_owned(),
                normalized: false,
                special: self.kind(id) == CONTROL,
                ..AddedToken::default()
            })
            .collect()
    }
}
