"""The pictures of cards and packs: SVG, drawn from what is known of each, the same whenever it is asked for."""

from __future__ import annotations

import hashlib
import math
import re
import textwrap
from collections.abc import Sequence
from html import escape
from typing import Final

from attrs import field, frozen

WIDTH: Final = 240
HEIGHT: Final = 336

_LINE: Final = 20
_LINES: Final = 2
_FORBIDDEN: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# How much of a label there is room for, beside a grade and without one.
_LABEL_SHORT, _LABEL_LONG = 14, 22
_FRAME: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img">
<title>{title}</title>
<defs>
<linearGradient id="g" x1="0" y1="0" x2="1" y2="1"><stop offset="0" stop-color="hsl({hue} 62% 46%)"/><stop offset="1" \
stop-color="hsl({other} 58% 24%)"/></linearGradient>
<linearGradient id="s" x1="0" y1="0" x2="1" y2="1"><stop offset="0.35" stop-color="#fff" stop-opacity="0"/>\
<stop offset="0.5" stop-color="#fff" stop-opacity="0.22"/><stop offset="0.65" stop-color="#fff" stop-opacity="0"/>\
</linearGradient>
<clipPath id="l"><rect x="16" y="12" width="{label}" height="20"/></clipPath>
<clipPath id="c"><rect x="14" y="58" width="212" height="212" rx="8"/></clipPath>
</defs>
<rect width="{w}" height="{h}" rx="14" fill="#f4f1ea"/>
<rect x="0.5" y="0.5" width="{w_less}" height="{h_less}" rx="13.5" fill="none" stroke="#000" stroke-opacity="0.25"/>
<g font-family="system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif">
{inside}</g>
</svg>
"""


def _allowed(text: str) -> str:
    """Replace what no XML may hold, such as control characters."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


@frozen
class Face:
    """What a picture shows.

    Attributes:
        key: Decides on colours and motif: an item's id, or a pack's.
        name: What it is called.
        label: A short line above, such as its category.
        grade: What stands in its corner, such as `PSA 10.0`; may be empty.
    """

    key: str = field(converter=_allowed)
    name: str = field(converter=_allowed)
    label: str = field(converter=_allowed)
    grade: str = field(default="", converter=_allowed)


def front(face: Face) -> str:
    """Draw the front: name, grade, and a motif of its own."""
    digest = _digest(face)
    label = _cut(face.label.upper(), _LABEL_SHORT if face.grade else _LABEL_LONG)
    inside = [
        f'<g clip-path="url(#l)"><text x="16" y="26" font-size="11" letter-spacing="1" fill="#57534e">{escape(label)}'
        "</text></g>",
        f'<text x="16" y="45" font-size="13" font-weight="700" fill="#1c1917">{escape(_year(face.name))}</text>',
    ]
    if face.grade:
        inside += [
            '<rect x="150" y="14" width="76" height="34" rx="5" fill="#1c1917"/>',
            '<text x="188" y="36" font-size="13" font-weight="700" fill="#fff" text-anchor="middle">'
            f"{escape(face.grade[:9])}</text>",
        ]
    inside += [
        '<rect x="14" y="58" width="212" height="212" rx="8" fill="url(#g)"/>',
        f'<g clip-path="url(#c)">{_motif(digest)}',
        '<text x="120" y="190" font-size="76" font-weight="800" fill="#fff" fill-opacity="0.94" text-anchor="middle">'
        f"{escape(_initials(face.name))}</text>",
        '<rect x="14" y="58" width="212" height="212" fill="url(#s)"/></g>',
    ]
    for number, line in enumerate(_lines(face.name)):
        weight, size = (700, 15) if number == 0 else (400, 13)
        inside.append(
            f'<text x="16" y="{294 + 20 * number}" font-size="{size}" font-weight="{weight}" fill="#1c1917">'
            f"{escape(line)}</text>"
        )
    return _frame(f"{face.name}, front", digest, inside, label=130 if face.grade else 208)


def back(face: Face) -> str:
    """Draw the back: a pattern, and the id."""
    digest = _digest(face)
    dots = "".join(
        f'<circle cx="{26 + 22 * column + 11 * (row % 2)}" cy="{28 + 22 * row}" r="{3 + (row + column) % 3}"/>'
        for row in range(14)
        for column in range(9)
    )
    inside = [
        f'<rect x="12" y="12" width="{WIDTH - 24}" height="{HEIGHT - 24}" rx="8" fill="url(#g)"/>',
        f'<g fill="#fff" fill-opacity="0.12">{dots}</g>',
        '<rect x="40" y="136" width="160" height="64" rx="8" fill="#1c1917" fill-opacity="0.72"/>',
        '<text x="120" y="163" font-size="15" font-weight="700" letter-spacing="4" fill="#fff" text-anchor="middle">'
        "SANDBOX</text>",
        f'<text x="120" y="184" font-size="10" fill="#fff" text-anchor="middle">{escape(face.key[:24])}</text>',
    ]
    return _frame(f"{face.name}, back", digest, inside)


def _digest(face: Face) -> bytes:
    return hashlib.blake2b(face.key.encode(errors="replace"), digest_size=16).digest()


def _frame(title: str, digest: bytes, inside: Sequence[str], *, label: int = 0) -> str:
    hue = digest[0] * 360 // 256
    return _FRAME.format(
        w=WIDTH, h=HEIGHT, w_less=WIDTH - 1, h_less=HEIGHT - 1, title=escape(title),
        label=label, hue=hue, other=(hue + 30 + digest[1] // 4) % 360, inside="\n".join(inside),
    )  # fmt: skip


def _motif(digest: bytes) -> str:
    motifs = (_rays, _rings, _waves, _tiles)
    return f'<g fill="#fff" fill-opacity="0.13" stroke="none">{motifs[digest[2] % len(motifs)](digest)}</g>'


def _rays(digest: bytes) -> str:
    count = 8 + digest[3] % 8
    shapes = []
    for number in range(count):
        ends = [math.tau * (number + share) / count for share in (0, 0.5)]
        points = " ".join(f"{120 + 190 * math.cos(end):.0f},{164 + 190 * math.sin(end):.0f}" for end in ends)
        shapes.append(f'<polygon points="120,164 {points}"/>')
    return "".join(shapes)


def _rings(digest: bytes) -> str:
    x, y = 60 + digest[3] % 120, 90 + digest[4] % 140
    return "".join(f'<circle cx="{x}" cy="{y}" r="{radius}"/>' for radius in (40, 80, 125, 180))


def _waves(digest: bytes) -> str:
    height = 10 + digest[3] % 16
    shapes = []
    for number in range(6):
        y = 92 + 34 * number
        shapes.append(f'<path d="M0 {y} q30 -{height} 60 0 t60 0 t60 0 t60 0 V{y + 16} H0 Z"/>')
    return "".join(shapes)


def _tiles(digest: bytes) -> str:
    return "".join(
        f'<rect x="{14 + 53 * column}" y="{58 + 53 * row}" width="53" height="53"/>'
        for row in range(4)
        for column in range(4)
        if digest[4 + row] >> column & 1
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def _year(name: str) -> str:
    first = name.split(" ", 1)[0]
    return first if first.isdigit() else "\u2014"


def _words(name: str) -> list[str]:
    words = name.split()
    return words[1:] if len(words) > 1 and words[0].isdigit() else words


def _initials(name: str) -> str:
    return "".join(word[0] for word in _words(name)[:2]).upper()


def _lines(name: str) -> list[str]:
    lines = textwrap.wrap(" ".join(_words(name)), _LINE, break_long_words=True)
    return [*lines[: _LINES - 1], " ".join(lines[_LINES - 1 :])[: _LINE + 4]] if len(lines) > _LINES else lines
