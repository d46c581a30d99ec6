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
    #[error("{repo}@{revision}: the hub has no such {what} (HTTP 404)")]
    NotFound {
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// What was asked for.
        what: String,
    },

    /// Another status.
    #[error("{url}: found HTTP {status}, expected 200")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },

    /// The hub cannot be reached, and the cache does not have the model either.
    #[error(
        "{id}: cannot reach {endpoint} ({reason}), and {cache} has no complete copy: connect, or give a folder"
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
    #[error("the hub cannot be reached: {reason}")]
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
        "{repo}: {file}: the connection broke after {received} of {size} bytes ({reason}); what is there is kept: run the same command to go on"
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
        "{repo}: {file}: found {kind} {found}, expected {expected}: deleted, run the same command to download it again"
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

    /// An answer that does not follow the hub's protocol.
    #[error("{url}: {field}: found {found}, expected {expected}")]
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
         T.from_pretrained('{repo}', revision='{revision}').save_pretrained('model')\", then --model model",
        pickle.as_ref().map_or_else(String::new, |name| format!("only {name}, "))
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
