//! `cargo xtask book`: the pages below `docs/`, and those elsewhere that they link to, as a book.
//!
//! mdBook knows no page outside its folder. So what `docs/SUMMARY.md` names is copied, at its place in the repository, into
//! a folder of its own, with every file that a page links to; then all links lead somewhere, in the book as in the repository.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::links::{Link, links, plain};
use crate::tools::{self, MDBOOK};

/// The folder of the book's own pages.
const DOCS: &str = "docs";

/// The folder that mdBook reads, in that of the book.
const SOURCE: &str = "source";

/// Builds the book, checks its links, and opens it if asked to.
#[expect(clippy::print_stdout, reason = "a chore tells what it did")]
pub(crate) fn run(open: bool) -> Result<()> {
    let mdbook = tools::installed(&MDBOOK)?;
    let target = tools::target()?.join("book");
    let (source, html) = (target.join(SOURCE), target.join("html"));
    for old in [&source, &html] {
        if old.exists() {
            fs_err::remove_dir_all(old)?;
        }
    }
    let root = Path::new(crate::ROOT);
    let chapters = assemble(root, &source)?;
    for settings in ["book.toml", "book.css"] {
        fs_err::copy(root.join(DOCS).join(settings), target.join(settings))?;
    }
    let mut build = Command::new(mdbook);
    build.arg("build").arg(&target).arg("--dest-dir").arg(&html);
    // In the repository the pages lie beside the settings, here one folder below.
    build.env("MDBOOK_BOOK__SRC", SOURCE);
    if open {
        build.arg("--open");
    }
    let status = build.status().context("cannot run mdbook")?;
    ensure!(status.success(), "mdbook failed: {status}");
    let checked = check(&html)?;
    println!(
        "{chapters} chapters, {checked} links that lead somewhere: {}",
        html.join("index.html").display()
    );
    Ok(())
}

/// The chapters that SUMMARY.md names, from the root of the repository.
fn chapters(root: &Path) -> Result<Vec<PathBuf>> {
    let summary = fs_err::read_to_string(root.join(DOCS).join("SUMMARY.md"))?;
    let mut chapters = Vec::new();
    // A chapter without a path is one that is not written yet.
    for link in links(&summary).iter().filter(|link| !link.path.is_empty()) {
        let path = plain(&Path::new(DOCS).join(&link.path));
        let path = path.filter(|path| root.join(path).is_file());
        chapters.push(path.with_context(|| {
            format!(
                "{DOCS}/SUMMARY.md:{}: found no page {}",
                link.line, link.path
            )
        })?);
    }
    Ok(chapters)
}

/// Copies the chapters and what they link to; returns how many chapters there are.
fn assemble(root: &Path, to: &Path) -> Result<usize> {
    let chapters = chapters(root)?;
    let mut copies: BTreeSet<PathBuf> = chapters.iter().cloned().collect();
    for chapter in &chapters {
        let text = fs_err::read_to_string(root.join(chapter))?;
        let folder = chapter.parent().unwrap_or(Path::new(""));
        for Link { path, line, .. } in links(&text) {
            let place = format!("{}:{line}", chapter.display());
            let target = plain(&folder.join(&path)).filter(|path| root.join(path).exists());
            let target = target.with_context(|| format!("{place}: found nothing at {path}"))?;
            let is_page = target
                .extension()
                .is_some_and(|extension| extension == "md");
            if is_page && !path.is_empty() && !chapters.contains(&target) {
                bail!("{place}: {path} is no chapter, expected it in {DOCS}/SUMMARY.md");
            }
            if !path.is_empty() {
                files_below(root, target, &mut copies)?;
            }
        }
    }
    for path in &copies {
        let copy = to.join(path);
        fs_err::create_dir_all(copy.parent().context("a file in a folder")?)?;
        fs_err::copy(root.join(path), copy)?;
    }
    let summary = fs_err::read_to_string(root.join(DOCS).join("SUMMARY.md"))?;
    fs_err::write(to.join("SUMMARY.md"), from_the_root(&summary)?)?;
    Ok(chapters.len())
}

fn files_below(root: &Path, path: PathBuf, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !root.join(&path).is_dir() {
        files.insert(path);
        return Ok(());
    }
    for entry in fs_err::read_dir(root.join(&path))? {
        files_below(root, path.join(entry?.file_name()), files)?;
    }
    Ok(())
}

/// The summary, its links from the root of the repository instead of the folder of the pages.
fn from_the_root(summary: &str) -> Result<String> {
    let mut text = String::new();
    let mut rest = summary;
    while let Some((before, after)) = rest.split_once("](") {
        let (path, end) = after.split_once(')').context("a link of SUMMARY.md ends")?;
        text.push_str(before);
        text.push_str("](");
        if !path.is_empty() {
            let path = plain(&Path::new(DOCS).join(path)).context("a page of this repository")?;
            text.push_str(&path.to_string_lossy().replace('\\', "/"));
        }
        text.push(')');
        rest = end;
    }
    text.push_str(rest);
    Ok(text)
}

/// Follows every link of the pages that mdBook wrote; returns how many there are.
fn check(html: &Path) -> Result<usize> {
    let mut pages = BTreeSet::new();
    files_below(html, PathBuf::new(), &mut pages)?;
    pages.retain(|page| {
        page.extension()
            .is_some_and(|extension| extension == "html")
    });
    // The page of a server for what is not there: its links start from the root.
    pages.remove(Path::new("404.html"));
    let (mut checked, mut wrong) = (0, Vec::new());
    for page in &pages {
        let text = fs_err::read_to_string(html.join(page))?;
        // What our own examples of pages hold is theirs.
        if !text.contains("mdBook") {
            continue;
        }
        let folder = page.parent().unwrap_or(Path::new(""));
        for link in attributes(&text, "href").chain(attributes(&text, "src")) {
            if link.contains("://") || link.starts_with("data:") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let to = if path.is_empty() {
                Some(page.clone())
            } else {
                plain(&folder.join(path))
            };
            let to = to.map(|to| html.join(to)).filter(|to| to.exists());
            let has_heading = |to: &PathBuf| {
                let text = fs_err::read_to_string(to).unwrap_or_default();
                heading.is_empty() || attributes(&text, "id").any(|id| id == heading)
            };
            if !to.as_ref().is_some_and(has_heading) {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "links of the book to nowhere:\n{}",
        wrong.join("\n")
    );
    ensure!(checked > 0, "{}: found no link", html.display());
    Ok(checked)
}

/// Values of an attribute, as mdBook writes it.
fn attributes<'t>(html: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let begin = format!(" {name}=\"");
    let parts: Vec<&str> = html.split(begin.as_str()).skip(1).collect();
    parts
        .into_iter()
        .filter_map(|part| Some(part.split_once('"')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_a_chapter() {
        let root = Path::new(crate::ROOT);
        let chapters = chapters(root).unwrap();
        let mut pages = BTreeSet::new();
        files_below(root, PathBuf::from(DOCS), &mut pages).unwrap();
        let pages = pages.iter().filter(|page| {
            let is_page = page.extension().is_some_and(|extension| extension == "md");
            is_page && !page.ends_with("SUMMARY.md")
        });
        let missing: Vec<_> = pages.filter(|page| !chapters.contains(page)).collect();
        assert!(missing.is_empty(), "not in docs/SUMMARY.md: {missing:?}");
        let unique: BTreeSet<_> = chapters.iter().collect();
        assert_eq!(
            unique.len(),
            chapters.len(),
            "a page is in docs/SUMMARY.md twice"
        );
    }

    /// Without mdBook: what it is given is complete.
    #[test]
    fn what_the_book_is_made_of_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let chapters = assemble(Path::new(crate::ROOT), folder.path()).unwrap();
        assert!(chapters > 20, "{chapters}");
        for file in ["README.md", "SUMMARY.md", "docs/guides/own-task/task.toml"] {
            assert!(folder.path().join(file).is_file(), "{file}");
        }
        let summary = fs_err::read_to_string(folder.path().join("SUMMARY.md")).unwrap();
        assert!(summary.contains("](README.md)"), "{summary}");
        assert!(summary.contains("](docs/methods/README.md)"), "{summary}");
    }
}
