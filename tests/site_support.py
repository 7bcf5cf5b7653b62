"""The site of documents, built for tests, and what its pages refer to."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from attrs import define, field

from support import ROOT, script

# What a browser fetches without being asked.
_FETCHED: Final = frozenset({"script", "img", "source", "iframe", "video", "audio", "embed", "object"})


def stage(folder: Path) -> None:
    """Write what the site is made of into a folder of its own."""
    shutil.copy(ROOT / "mkdocs.yml", folder)
    script("build_site").stage(ROOT, folder / "build" / "docs")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site in `folder`, as `make docs` does."""
    done: subprocess.CompletedProcess[str] = script("build_site").build(folder)
    return done


@define
class Page(HTMLParser):
    """What one page of the site holds.

    Attributes:
        url: Its path in the site, with `/` before it.
        ids: What a link to the page can name after a `#`.
        links: Where its links lead, as they are written.
        fetched: What a browser fetches to show it, as it is written.
    """

    url: str
    ids: set[str] = field(factory=set)
    links: list[str] = field(factory=list)
    fetched: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take from a tag what it names and refers to."""
        values = {name: value for name, value in attrs if value}
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and "href" in values:
            self.fetched.append(values["href"])
        elif tag in _FETCHED:
            self.fetched += [values[name] for name in ("src", "srcset", "data", "poster") if name in values]

    def resolve(self, link: str) -> tuple[str, str]:
        """Return the path that a link within the site leads to, and what it names there."""
        parts = urlsplit(urljoin(self.url, link))
        return unquote(parts.path), unquote(parts.fragment)


def read_pages(site: Path) -> dict[str, Page]:
    """Return the pages of a site by their paths."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        url = "/" + path.relative_to(site).as_posix()
        page = pages[url] = Page(url)
        page.feed(path.read_text())
    return pages
