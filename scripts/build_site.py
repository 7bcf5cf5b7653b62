"""Builds the site of documents into site/: `python scripts/build_site.py`.

What the site shows is copied to build/docs first: the documents link to files of the source too, which a site has no
page for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from posixpath import curdir, dirname, join, normpath, relpath
from typing import Final

ROOT: Final = Path(__file__).parent.parent
# Pages of the site that are written elsewhere than in docs/.
_ELSEWHERE: Final = {"CHANGELOG.md": "changelog.md", "benchmarks/README.md": "benchmarks.md"}
_FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)")


def stage(root: Path, folder: Path) -> None:
    """Write what the site of the source in `root` is made of into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "docs", folder)
    documents = [path.relative_to(root).as_posix() for path in (root / "docs").rglob("*.md")]
    for document in [*documents, *_ELSEWHERE]:
        parts = _FENCED.split((root / document).read_text())
        for picture in _pictures("".join(parts[::2]), document):
            (folder / _place(picture)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / picture, folder / _place(picture))
        parts[::2] = [_relink(part, document) for part in parts[::2]]
        (folder / _place(document)).write_text("".join(parts))


def _place(path: str) -> str:
    """Return where a file of the source is in the site."""
    return _ELSEWHERE.get(path, path.removeprefix("docs/"))


def _target(document: str, link: str) -> str:
    """Return the file of the source that a link in a document leads to."""
    return normpath(join(dirname(document), link))


def _pictures(text: str, document: str) -> list[str]:
    return [_target(document, link) for image, _, link, _ in _LINK.findall(text) if image]


def _relink(text: str, document: str) -> str:
    """Return a text in which each link leads to where its target is in the site."""

    def relinked(found: re.Match[str]) -> str:
        image, shown, link, anchor = found.groups(default="")
        target = _target(document, link)
        if not image and not target.startswith("docs/") and target not in _ELSEWHERE:
            # As on a package index: the path in the place of a link.
            return f"{shown} (`{target}`)"
        return f"{image}[{shown}]({relpath(_place(target), dirname(_place(document)) or curdir)}{anchor})"

    return _LINK.sub(relinked, text)


if __name__ == "__main__":
    stage(ROOT, ROOT / "build" / "docs")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)  # noqa: S603 - a command of this file.
