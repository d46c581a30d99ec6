//! Links and headings of Markdown pages.

use std::path::{Component, Path, PathBuf};

use markdown::mdast::Node;
use markdown::{ParseOptions, to_mdast};

/// A link or a picture of a page that leads to a file beside it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where it leads, from the folder of the page; empty for a heading of the page itself.
    pub(crate) path: String,
    /// The heading behind the `#`.
    pub(crate) heading: Option<String>,
    /// The line that it stands in, from 1.
    pub(crate) line: usize,
}

/// Links that lead to no other machine, in order.
pub(crate) fn links(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    walk(text, &mut |node| {
        let (Node::Link(markdown::mdast::Link { url, position, .. })
        | Node::Image(markdown::mdast::Image { url, position, .. })) = node
        else {
            return;
        };
        if url.contains("://") || url.starts_with("mailto:") {
            return;
        }
        let (path, heading) = match url.split_once('#') {
            Some((path, heading)) => (path, Some(heading.to_owned())),
            None => (url.as_str(), None),
        };
        links.push(Link {
            path: path.to_owned(),
            heading,
            line: position.as_ref().map_or(0, |place| place.start.line),
        });
    });
    links
}

/// Shows every part of a page, in order.
fn walk(text: &str, see: &mut dyn FnMut(&Node)) {
    fn below(node: &Node, see: &mut dyn FnMut(&Node)) {
        see(node);
        for child in node.children().into_iter().flatten() {
            below(child, see);
        }
    }
    // Markdown has no errors; MDX, which is not asked for, has.
    if let Ok(page) = to_mdast(text, &ParseOptions::gfm()) {
        below(&page, see);
    }
}

/// A path without `.` and `..`, as far as it can be said; `None` where it leads out.
pub(crate) fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            part => plain.push(part),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What a `#` can name: the headings, as forges and mdBook write them.
    fn headings(text: &str) -> Vec<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut headings = Vec::new();
        walk(text, &mut |node| {
            if !matches!(node, Node::Heading(_)) {
                return;
            }
            let slug = slug(&node.to_string());
            let before = seen.entry(slug.clone()).or_insert(0);
            headings.push(match before {
                0 => slug,
                _ => format!("{slug}-{before}"),
            });
            *before += 1;
        });
        headings
    }

    fn slug(heading: &str) -> String {
        let letters = heading.trim().chars().filter_map(|c| match c {
            c if c.is_whitespace() => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => c.to_lowercase().next(),
            _ => None,
        });
        letters.collect()
    }

    /// Every page of the repository, from its root.
    fn pages() -> Vec<PathBuf> {
        let root = Path::new(crate::ROOT);
        let mut pages = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
        let mut folders = ["docs", "benches", "datasets"].map(PathBuf::from).to_vec();
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(root.join(&folder)).unwrap() {
                let path = folder.join(entry.unwrap().file_name());
                if root.join(&path).is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "md") {
                    pages.push(path);
                }
            }
        }
        pages
    }

    #[test]
    fn links_lead_somewhere() {
        let root = Path::new(crate::ROOT);
        let pages = pages();
        assert!(pages.len() > 25, "{}", pages.len());
        let mut checked = 0;
        let mut wrong = Vec::new();
        for page in &pages {
            let text = fs_err::read_to_string(root.join(page)).unwrap();
            for link in links(&text) {
                // A chapter that is not written yet.
                if link.path.is_empty() && link.heading.is_none() {
                    continue;
                }
                checked += 1;
                let folder = page.parent().unwrap();
                let to = match link.path.as_str() {
                    "" => Some(page.clone()),
                    path => plain(&folder.join(path)),
                };
                let there = to.as_ref().is_some_and(|to| root.join(to).exists());
                let has_heading = || {
                    link.heading.as_ref().is_none_or(|heading| {
                        let to = root.join(to.as_ref().unwrap());
                        headings(&fs_err::read_to_string(to).unwrap()).contains(heading)
                    })
                };
                if !there || !has_heading() {
                    let Link {
                        path,
                        heading,
                        line,
                    } = link;
                    wrong.push(format!("{}:{line}: {path} {heading:?}", page.display()));
                }
            }
        }
        assert!(checked > 100, "{checked}");
        assert!(wrong.is_empty(), "links to nowhere:\n{}", wrong.join("\n"));
    }

    #[test]
    fn links_and_headings_are_found() {
        let text = "# A `b` c!\n\n[x](../y.md#z) ![p](p.svg)\n\n## A b c\n\n[h](https://h) [t](#a-b-c-1)\n";
        let found = links(text);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].path.as_str(), found[0].line), ("../y.md", 3));
        assert_eq!(found[0].heading.as_deref(), Some("z"));
        assert_eq!(headings(text), ["a-b-c", "a-b-c-1"]);
        assert_eq!(plain(Path::new("a/../b/./c")), Some(PathBuf::from("b/c")));
        assert_eq!(plain(Path::new("../b")), None);
    }
}
