"""The site of documents: it builds, leads nowhere wrong, fetches nothing from elsewhere, and has every public name."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from site_support import Page, build, read_pages, stage
from support import ROOT, public_modules, script


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Give the pages of the site by their paths."""
    return read_pages(site)


def test_each_link_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    """A link within the site names a file of it, and an anchor that is there."""
    broken = []
    followed = 0
    for page in pages.values():
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            path, anchor = page.resolve(link)
            path = path + "index.html" if path.endswith("/") else path
            followed += 1
            found = pages[path].ids if path in pages else set()
            if not (site / path[1:]).is_file() or (anchor and anchor not in found):
                broken.append(f"{page.url}: {link}")
    assert broken == []
    assert followed > 1000


def test_nothing_is_fetched_from_another_host(site: Path, pages: dict[str, Page]) -> None:
    """Scripts, styles, fonts and pictures are the site's own, in pages and in stylesheets."""
    fetched = [(page, link) for page in pages.values() for link in page.fetched]
    strays = [f"{page.url}: {link}" for page, link in fetched if urlsplit(link).netloc]
    for path in site.rglob("*.css"):
        strays += re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^)'\"]*)", path.read_text())
    assert strays == []
    missing = [f"{page.url}: {link}" for page, link in fetched if not (site / page.resolve(link)[0][1:]).is_file()]
    assert missing == []
    assert len(fetched) > len(pages)


def test_every_document_is_in_the_navigation(pages: dict[str, Page]) -> None:
    """A document that is added, and not to `nav` in mkdocs.yml, would be found by nobody."""
    documents = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    reached = {pages["/index.html"].resolve(link)[0] for link in pages["/index.html"].links}
    assert {f"/{path.as_posix()}" for path in documents} - reached == set()


def test_every_public_name_is_in_the_reference(pages: dict[str, Page]) -> None:
    """Each is on a page of the reference, by a name it can be imported by."""
    anchors = {anchor for url, page in pages.items() if url.startswith("/reference/") for anchor in page.ids}
    spelt: dict[int, list[str]] = {}
    for module in public_modules():
        # The command line has a document of its own.
        for name in () if module.__name__ == "phygitals_async.cli" else getattr(module, "__all__", ()):
            spelt.setdefault(id(getattr(module, name)), []).append(f"{module.__name__}.{name}")
    assert len(spelt) > 150
    assert [names for names in spelt.values() if anchors.isdisjoint(names)] == []
    assert "phygitals_async.opentelemetry.OpenTelemetryObserver" in anchors


def test_the_sections_that_docstrings_cite_can_be_linked_to(pages: dict[str, Page]) -> None:
    """Each endpoint's section of the API sheet has an anchor that begins with its number."""
    anchors = pages["/api-sheet.html"].ids
    for section in range(1, 12):
        assert [one for one in anchors if re.match(rf"2{section}-[a-z]", one)], section


def test_what_a_docstring_cites_is_a_link(site: Path) -> None:
    """Each section of the API sheet that the text of a page names, and each rule of the sandbox, leads there."""
    client = (site / "reference" / "client.html").read_text()
    assert re.findall(
        r'sent at most once \((<a href="[^"]*">API sheet, 2.5</a> and <a href="[^"]*">2.6</a>)\)', client
    ) == [
        '<a href="../api-sheet.html#25-start-a-purchase-post-apiv1vmbuyinit">API sheet, 2.5</a> and '
        '<a href="../api-sheet.html#26-poll-a-purchase-post-apiv1vmbuystatus">2.6</a>'
    ]
    assert client.count(">API sheet, 2.7</a>") > 2
    plain = []
    for path in site.rglob("*.html"):
        text = re.sub(r"<(a|code|pre|script|title)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        plain += re.findall(r"(?:API\s+sheet,\s+(?:section\s+)?|\(sections?\s+)\d[^)]*\)|\(S\d+\)", text)
    assert plain == []


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("(API sheet, 2.7)", "(<API sheet, 2.7=two-seven>)"),
        ("(API sheet,\nsection 4)", "(<API sheet,\nsection 4=four>)"),
        ("(API sheet, 2.7, 2.10)", "(<API sheet, 2.7=two-seven>, <2.10=two-ten>)"),
        ("(API sheet, sections 2.7 to 2.10).", "(<API sheet, sections 2.7=two-seven> to <2.10=two-ten>)."),
        ("(sandbox only, API sheet, section 4, S7)", "(sandbox only, <API sheet, section 4=four>, <S7=s7>)"),
        ("(purchases, section 4, S7)", "(purchases, <section 4=four>, <S7=s7>)"),
        ("(section 2.7)", "(<section 2.7=two-seven>)"),
        ("offers (S7, S12) end", "offers (<S7=s7>, <S12=s12>) end"),
        ("RFC 9110, section 4.2; stored on S3 (S3 of Amazon); the API sheet, in", None),
        ("<a href='b>c'>API sheet, 2.7</a><code>(section 4)</code><pre>(S7)</pre><!-- (S7) -->", None),
        ('<i title="(section 4)"></i><script>if (a <b) "(section 4)"</script><title>(S7)</title>', None),
    ],
)  # fmt: skip
def test_which_texts_are_citations(tmp_path: Path, text: str, linked: str | None) -> None:
    """Those of sections and of rules, in all their forms, where no link or code is."""
    _write_sheet(tmp_path)
    (tmp_path / "reference").mkdir()
    page = tmp_path / "reference" / "client.html"
    page.write_text(f"<p>{text}</p>")
    assert script("build_site").link_citations(tmp_path) == []
    expected = re.sub(r"<([^<>=]+)=([^>]+)>", r'<a href="../api-sheet.html#\2">\1</a>', linked) if linked else text
    assert page.read_text() == f"<p>{expected}</p>"


def test_a_citation_of_what_is_not_there_is_told(tmp_path: Path) -> None:
    """With its page; the others are linked, within the sheet too."""
    _write_sheet(tmp_path, "<p>(section 4), (section 4.1), (S8)</p>")
    assert script("build_site").link_citations(tmp_path) == [
        "api-sheet.html: the API sheet has no 4.1",
        "api-sheet.html: the API sheet has no S8",
    ]
    assert (
        '<p>(<a href="api-sheet.html#four">section 4</a>), (section 4.1), (S8)</p>'
        in (tmp_path / "api-sheet.html").read_text()
    )


def _write_sheet(site: Path, more: str = "") -> None:
    headings = '<h3 id="two-seven">2.7 Inventory</h3><h3 id="two-ten">2.10 Ship</h3><h2 id="four">4. Sandbox</h2>'
    (site / "api-sheet.html").write_text(f"{headings}<td>S7</td><td>S12</td>{more}")


@pytest.mark.usefixtures("site_builder")
def test_a_citation_of_what_is_not_there_ends_the_build(tmp_path: Path) -> None:
    """As a broken link does."""
    stage(tmp_path)
    document = tmp_path / "build" / "docs" / "index.md"
    document.write_text(document.read_text() + "\n(API sheet, 2.99)\n")
    done = build(tmp_path)
    assert done.returncode != 0
    assert "index.html: the API sheet has no 2.99" in done.stdout


def test_a_link_to_a_file_of_the_source_becomes_its_path(tmp_path: Path) -> None:
    """The site has no page for it. What stands in code is no link, and pictures come along."""
    for name, text in {
        "docs/guide/show.md": "[a *shop*](../../examples/shop.py), [b](../cli.md#c), [c](../../CHANGELOG.md), [d](#d)",
        "docs/cli.md": "```\n[a](../examples/shop.py)\n```\n[e](https://example.com/a) [f](../benchmarks/README.md)",
        "CHANGELOG.md": "[g](docs/cli.md), [h](SECURITY.md#i)",
        "benchmarks/README.md": "![i](speed.svg)",
        "benchmarks/speed.svg": "<svg/>",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    folder = tmp_path / "staged"
    script("build_site").stage(tmp_path, folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(folder).as_posix(): path.read_text() for path in files} == {
        "guide/show.md": "a *shop* (`examples/shop.py`), [b](../cli.md#c), [c](../changelog.md), [d](#d)",
        "cli.md": "```\n[a](../examples/shop.py)\n```\n[e](https://example.com/a) [f](benchmarks.md)",
        "changelog.md": "[g](cli.md), h (`SECURITY.md`)",
        "benchmarks.md": "![i](benchmarks/speed.svg)",
        "benchmarks/speed.svg": "<svg/>",
    }


@pytest.mark.usefixtures("site_builder")
def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    """To a page, and to an anchor of one."""
    stage(tmp_path)
    document = tmp_path / "build" / "docs" / "index.md"
    document.write_text(document.read_text() + "\n[a](nowhere.md) [b](cli.md#nothing)\n")
    done = build(tmp_path)
    assert done.returncode != 0
    assert "page does not exist" in done.stdout
    assert "anchor does not exist" in done.stdout
