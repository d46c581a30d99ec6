use core::fmt;
use core::str::FromStr;

use super::HubError;

/// The longest owner or name that is accepted, in bytes: the hub's own limit.
const MAX_PART: usize = 96;

/// The longest revision that is accepted, in bytes.
const MAX_REVISION: usize = 255;

/// A model of the hub: `owner/name`, or `owner/name@revision`.
///
/// A revision is a branch, a tag, a reference such as `refs/pr/3`, or a commit of 40 hexadecimal digits;
/// without one it is the branch `main`.
///
/// ```
/// use circuitscope_model::hub::HubId;
///
/// let id: HubId = "openai-community/gpt2".parse().unwrap();
/// assert_eq!((id.repo(), id.revision()), ("openai-community/gpt2".to_owned(), "main"));
///
/// let id: HubId = "EleutherAI/pythia-70m@step3000".parse().unwrap();
/// assert_eq!(id.revision(), "step3000");
/// assert_eq!(id.to_string(), "EleutherAI/pythia-70m@step3000");
///
/// let error = "gpt2".parse::<HubId>().unwrap_err();
/// assert_eq!(error.to_string(), "\"gpt2\": found no `/`, expected owner/name or owner/name@revision");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    owner: String,
    name: String,
    revision: Option<String>,
}

impl HubId {
    /// `owner/name`.
    pub fn repo(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The revision asked for, `main` if none was.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl FromStr for HubId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let bad = |found: String| HubError::Id {
            text: text.to_owned(),
            found,
        };
        let (repo, revision) = match text.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (text, None),
        };
        let Some((owner, name)) = repo.split_once('/') else {
            return Err(bad("no `/`".to_owned()));
        };
        for (what, part) in [("owner", owner), ("name", name)] {
            check_part(part).map_err(|found| bad(format!("{found} in the {what}")))?;
        }
        if let Some(revision) = revision {
            check_revision(revision).map_err(|found| bad(format!("{found} in the revision")))?;
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// An owner or a name becomes part of a path: it must not be able to leave the cache.
fn check_part(part: &str) -> Result<(), String> {
    if part.is_empty() {
        return Err("nothing".to_owned());
    }
    if part.len() > MAX_PART {
        return Err(format!("{} bytes (at most {MAX_PART})", part.len()));
    }
    if let Some(odd) = part.chars().find(|&c| !plain(c)) {
        return Err(format!("{odd:?}"));
    }
    let edges = ['-', '.'];
    if part.starts_with(edges) || part.ends_with(edges) {
        return Err("a dash or dot at an end".to_owned());
    }
    match ["--", ".."].iter().find(|&&pair| part.contains(pair)) {
        Some(pair) => Err(format!("`{pair}`")),
        None => Ok(()),
    }
}

fn check_revision(revision: &str) -> Result<(), String> {
    if revision.is_empty() {
        return Err("nothing".to_owned());
    }
    if revision.len() > MAX_REVISION {
        return Err(format!("{} bytes (at most {MAX_REVISION})", revision.len()));
    }
    if let Some(odd) = revision.chars().find(|&c| !plain(c) && c != '/') {
        return Err(format!("{odd:?}"));
    }
    let dots = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with('.');
    if revision.split('/').any(dots) || revision.contains("..") {
        return Err("an empty part, or one with dots at an end,".to_owned());
    }
    Ok(())
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_through_text() {
        for text in ["a/b", "a-b/c.d_e", "a/b@main", "a/b@refs/pr/3", "a/b@v1.0"] {
            assert_eq!(text.parse::<HubId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_could_leave_the_cache_is_refused() {
        for (text, found) in [
            ("", "no `/`"),
            ("/b", "nothing in the owner"),
            ("a/", "nothing in the name"),
            ("a/b/c", "'/' in the name"),
            ("../b", "a dash or dot at an end in the owner"),
            ("a/b--c", "`--` in the name"),
            ("a/b c", "' ' in the name"),
            ("a\\b/c", "'\\\\' in the owner"),
            ("a/b@", "nothing in the revision"),
            ("a/b@x@y", "'@' in the revision"),
            (
                "a/b@../x",
                "an empty part, or one with dots at an end, in the revision",
            ),
            (
                "a/b@/x",
                "an empty part, or one with dots at an end, in the revision",
            ),
        ] {
            let error = text.parse::<HubId>().unwrap_err().to_string();
            let expected =
                format!("{text:?}: found {found}, expected owner/name or owner/name@revision");
            assert_eq!(error, expected);
        }
        let long = format!("a/{}", "b".repeat(97));
        assert!(long.parse::<HubId>().is_err());
    }
}
