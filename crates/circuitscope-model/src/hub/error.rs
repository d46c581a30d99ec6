use std::path::PathBuf;

/// The most characters of a text of the hub's that an error shows.
const MOST: usize = 200;

/// A text that came from the hub, fit for a terminal: what is invisible or turns the direction of writing
/// is escaped, and what is long is cut.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    let mut length = 0;
    for c in text.chars() {
        let escaped = match c {
            '"' | '\'' | '\\' => String::from(c),
            _ => c.escape_debug().to_string(),
        };
        length += escaped.chars().count();
        if length > MOST {
            shown.push('…');
            break;
        }
        shown.push_str(&escaped);
    }
    shown
}

/// What can go wrong between the hub and the cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text that names no model of the hub.
    #[error("{text:?}: found {found}, expected owner/name or owner/name@revision")]
    Id {
        /// The text.
        text: String,
        /// What is wrong with it.
        found: String,
    },

    /// A request was refused: no token, a wrong one, or no right to the files. The hub answers so for
    /// repositories that do not exist, too.
    #[error(
        "{repo}: the hub refused access (HTTP {status}): the repository is gated or private, or does not exist; {}",
        if *had_token { "the token given has no right to it" } else { "set HF_TOKEN to a token that has a right to it" }
    )]
    Refused {
        /// `owner/name`.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        had_token: bool,
    },

    /// The hub has no such repository, revision or file.
    #[error("{repo}@{revision}: the hub has no such {} (HTTP 404)", shown(what))]
    NotFound {
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// What was asked for.
        what: String,
    },

    /// Another status.
    #[error("{}: found HTTP {status}, expected 200", shown(url))]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },

    /// The hub cannot be reached, and the cache does not have the model either.
    #[error(
        "{id}: cannot reach {endpoint} ({}), and {cache} has no complete copy: connect, or give a folder",
        shown(reason)
    )]
    Unreachable {
        /// The model.
        id: String,
        /// The hub.
        endpoint: String,
        /// Why.
        reason: String,
        /// The cache.
        cache: String,
    },

    /// The connection failed in the middle of the work.
    #[error("the hub cannot be reached: {}", shown(reason))]
    Network {
        /// Why.
        reason: String,
    },

    /// Requests are switched off, and the cache does not have the model.
    #[error(
        "{id}: not complete in the cache {cache}, and HF_HUB_OFFLINE forbids downloading: run once without it"
    )]
    Offline {
        /// The model.
        id: String,
        /// The cache.
        cache: String,
    },

    /// The connection broke again and again.
    #[error(
        "{repo}: {}: the connection broke after {received} of {size} bytes ({}); what is there is kept: run the same command to go on",
        shown(file),
        shown(reason)
    )]
    Cut {
        /// `owner/name`.
        repo: String,
        /// The file.
        file: String,
        /// Bytes on disk.
        received: u64,
        /// Size of the file in bytes.
        size: u64,
        /// Why.
        reason: String,
    },

    /// A file whose contents are not what the hub announced. It has been deleted.
    #[error(
        "{repo}: {}: found {kind} {found}, expected {expected}: deleted, run the same command to download it again",
        shown(file)
    )]
    Hash {
        /// `owner/name`.
        repo: String,
        /// The file.
        file: String,
        /// Which hash.
        kind: &'static str,
        /// Of what came, in hexadecimal.
        found: String,
        /// As announced, in hexadecimal.
        expected: String,
    },

    /// A file of the cache that is not what its name says. It is left where it is.
    #[error(
        "{repo}: {}: found {kind} {found} in the cache, expected {expected}: delete `{}` and run the same command again",
        shown(file),
        blob.display()
    )]
    Corrupt {
        /// `owner/name`.
        repo: String,
        /// The file.
        file: String,
        /// Which hash.
        kind: &'static str,
        /// Of what is there, in hexadecimal.
        found: String,
        /// As its name says, in hexadecimal.
        expected: String,
        /// Where it is.
        blob: PathBuf,
    },

    /// An answer that does not follow the hub's protocol.
    #[error("{}: {field}: found {}, expected {expected}", shown(url), shown(found))]
    Protocol {
        /// What was asked for.
        url: String,
        /// Header or field.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },

    /// A repository without weights in safetensors.
    #[error(
        "{repo}@{revision}: {}no model.safetensors here, and PyTorch pickles are never loaded; convert it once: \
         python -c \"from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; \
         M.from_pretrained('{repo}', revision='{revision}').save_pretrained('model', safe_serialization=True); \
         T.from_pretrained('{repo}', revision='{revision}').save_pretrained('model')\", and load the folder 'model'",
        pickle.as_ref().map_or_else(String::new, |name| format!("only {}, ", shown(name)))
    )]
    NoSafetensors {
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// A pickle that is there instead.
        pickle: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hub_says_cannot_write_to_the_terminal() {
        for (text, expected) in [
            ("model.safetensors", "model.safetensors"),
            ("a \"b\" \\ c's é 模型", "a \"b\" \\ c's é 模型"),
            ("\u{1b}[2Jx", "\\u{1b}[2Jx"),
            ("a\r\nb\0", "a\\r\\nb\\0"),
            ("\u{202e}txt\u{2066}", "\\u{202e}txt\\u{2066}"),
            ("\u{9b}31m\u{200b}", "\\u{9b}31m\\u{200b}"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shown(&"x".repeat(201)), format!("{}…", "x".repeat(200)));
        assert!(shown(&"\u{1b}".repeat(200)).chars().count() <= 201);
    }
}
