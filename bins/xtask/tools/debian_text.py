"""English text from Debian's documentation packages, as JSON lines of {"text": ..., "source": ...}.

    python3 debian_text.py UNPACKED TRAIN.jsonl HELD_OUT.jsonl

UNPACKED holds packages as `dpkg-deb -x` unpacks them: the reStructuredText sources of Python's documentation and the
English HTML of the Debian Administrator's Handbook. Documents come in the order of the SHA-256 of their names, so that a
beginning of the file is of many of them; one in ten is held out.
"""

import hashlib
import json
import pathlib
import sys
from html.parser import HTMLParser

SHORTEST = 2000  # characters of a document


class Paragraphs(HTMLParser):
    """The text of paragraphs."""

    def __init__(self):
        super().__init__()
        self.depth = 0
        self.hidden = 0
        self.parts = []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "style", "pre"):
            self.hidden += 1
        if tag == "p" or (tag == "div" and ("class", "para") in attrs):
            self.depth += 1
            self.parts.append("\n\n")

    def handle_endtag(self, tag):
        if tag in ("script", "style", "pre"):
            self.hidden -= 1
        if tag in ("p", "div"):
            self.depth = max(0, self.depth - 1)

    def handle_data(self, data):
        if self.depth > 0 and not self.hidden:
            self.parts.append(" ".join(data.split()) + " " if data.strip() else "")


def documents(unpacked):
    for path in sorted(unpacked.rglob("_sources/**/*.rst.txt")):
        if "whatsnew/changelog" not in path.as_posix():
            yield path.relative_to(unpacked).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted(unpacked.rglob("debian-handbook/html/en-US/*.html")):
        parser = Paragraphs()
        parser.feed(path.read_text(encoding="utf-8"))
        yield path.relative_to(unpacked).as_posix(), "".join(parser.parts).strip()


def main(unpacked, train, held_out):
    found = []
    for name, text in documents(pathlib.Path(unpacked)):
        if len(text) >= SHORTEST:
            found.append((hashlib.sha256(name.encode()).digest(), name, text))
    found.sort()
    if len(found) < 100:
        raise SystemExit(f"found {len(found)} documents in {unpacked}, expected 100 and more")
    with open(train, "w", encoding="utf-8") as kept, open(held_out, "w", encoding="utf-8") as held:
        for digest, name, text in found:
            out = held if digest[-1] % 10 == 0 else kept
            out.write(json.dumps({"text": text, "source": name}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
