"""The guide's blocks run, in their order, in an empty folder."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "python.md"


def test_the_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), flags=re.M | re.S)
    assert len(blocks) >= 6
    names = {}
    for at, block in enumerate(blocks):
        exec(compile(block, f"python.md, block {at + 1}", "exec"), names)
    assert (tmp_path / "found" / "report.html").is_file()
