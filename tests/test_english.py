"""Plain English: words that hide who does what may only become fewer."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("obsloop", "exporters", "docs", "dashboards", "deploy", "demo", "tools")
MOST = {"nobody": 0, "whoever": 0, "told": 0, "likewise": 0, "besides": 0, "of ours": 0, "figures": 0, "by itself": 0}
"""How often each may occur. Lower a number whenever you can; never raise one."""


def texts() -> list[str]:
    """Everything that people read: sources, documents, messages. CHANGELOG tells of times past."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    paths += [path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"]
    kinds = {".py", ".pyx", ".pxi", ".pxd", ".h", ".md"}
    return [path.read_text() for path in paths if path.suffix in kinds and "node_modules" not in path.parts]


def test_these_words_become_fewer():
    """A sentence without them says who does what."""
    everything = "\n".join(texts()).lower()
    found = {word: len(re.findall(rf"\b{word.replace(' ', chr(92) + 's+')}\b", everything)) for word in MOST}
    assert {word: n for word, n in found.items() if n > MOST[word]} == {}
