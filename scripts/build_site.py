"""Builds the site of documents into site/: `python scripts/build_site.py`.

What the site shows is copied to build/docs first: the documents link to files of the source too, which a site has no
page for. Afterwards the sections of the API sheet that its pages cite become links.
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

# Section numbers and rules of the API sheet, as texts cite them: (API sheet, 2.5 and 2.6), (section 4, S7), (S7).
_NUMBERS: Final = r"\d+(?:\.\d+)*(?:(?:,|\sand|\sto)\s\d+(?:\.\d+)*)*"
_RULES: Final = r"S\d+(?:(?:,|\sand|\sto)\sS\d+)*"
# Links, code and tags come first, and are left as they are.
_CITING: Final = re.compile(
    r"<(a|code|pre|script|style|title)\b.*?</\1>|<!--.*?-->|<(?:[^\"'>]|\"[^\"]*\"|'[^']*')*>|(?P<cited>"
    rf"(?:API\ssheet,\s(?:sections?\s)?|(?<=\()sections?\s){_NUMBERS}(?:,\s{_RULES})?"
    rf"|sections?\s{_NUMBERS},\s{_RULES}|(?<=\(){_RULES}(?=\)))",
    re.DOTALL,
)
_CITED: Final = re.compile(r"(?:API\ssheet,\s)?(?:sections?\s)?(S?\d+(?:\.\d+)*)")


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


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of what was staged in `folder`, with what it printed and which citations lead nowhere."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(  # noqa: S603 - a command of this file.
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode == 0 and (missing := link_citations(folder / "site")):
        done.returncode = 1
        done.stdout += "".join(f"{line}\n" for line in missing)
    return done


def link_citations(site: Path) -> list[str]:
    """Make links of what the pages cite, such as "API sheet, 2.7", and return what the sheet does not have."""
    sheet = site / "api-sheet.html"
    text = re.sub(r"<td>S(\d+)</td>", r'<td id="s\1">S\1</td>', sheet.read_text())
    sheet.write_text(text)
    anchors = {number: anchor for anchor, number in re.findall(r'<h\d id="([^"]+)">(\d+(?:\.\d+)*)\.? ', text)}
    anchors |= {f"S{number}": f"s{number}" for number in re.findall(r'<td id="s(\d+)">', text)}
    missing = []
    for page in sorted(site.rglob("*.html")):
        path = page.relative_to(site).as_posix()
        address = relpath("api-sheet.html", dirname(path) or curdir)
        linked, unknown = _link_page(page.read_text(), {number: f"{address}#{anchors[number]}" for number in anchors})
        page.write_text(linked)
        missing += [f"{path}: the API sheet has no {number}" for number in unknown]
    return missing


def _link_page(html: str, targets: dict[str, str]) -> tuple[str, list[str]]:
    """Return a page with its citations as links, and what it cites that is no target."""
    unknown: list[str] = []

    def linked(found: re.Match[str]) -> str:
        if found[1] in targets:
            return f'<a href="{targets[found[1]]}">{found[0]}</a>'
        unknown.append(found[1])
        return found[0]

    def cited(found: re.Match[str]) -> str:
        return found[0] if found["cited"] is None else _CITED.sub(linked, found[0])

    return _CITING.sub(cited, html), unknown


if __name__ == "__main__":
    stage(ROOT, ROOT / "build" / "docs")
    result = build(ROOT)
    print(result.stdout, end="")
    sys.exit(result.returncode)
