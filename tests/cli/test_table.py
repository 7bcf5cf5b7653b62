"""Tables in terminals of some widths."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import Server
from phygitals_async.cli._endings import Exit
from phygitals_async.cli._table import draw

ID = "VBmgYQ4NdAnhosg6cT3SHLDrtEa4s4sy9oJAEA1zQr7N"
COLUMNS = ("id", "card", "USD", "offer ends, UTC", "pack")
ROWS = [
    (ID, "1986 Kylian Mbappé Holo First Edition", "1,037.58", "2026-12-03 01:22", "neon-evolutions-holiday"),
    (ID[1:], "Pikachu", "0.50", "never", ""),
]
RIGHT = ("USD",)


def drawn(width: int) -> list[str]:
    """Return the lines of a table of items."""
    return list(draw(COLUMNS, ROWS, width, RIGHT))


def test_a_table_that_fits() -> None:
    """Whole texts, no space behind them, amounts below each other."""
    assert drawn(200) == [
        "id                                            card                                        USD  "
        "offer ends, UTC   pack",
        "─" * 136,
        f"{ID}  1986 Kylian Mbappé Holo First Edition  1,037.58  2026-12-03 01:22  neon-evolutions-holiday",
        f"{ID[1:]}   Pikachu                                    0.50  never",
    ]


def test_long_texts_are_shortened_first() -> None:
    """The longest of them, so far as it must be; every line is as wide as the terminal at most."""
    lines = drawn(120)
    assert lines[2] == f"{ID}  1986 Kylian Mbappé Ho…  1,037.58  2026-12-03 01:22  neon-evolutions-holid…"
    assert max(map(len, lines)) == 120


def test_then_columns_go() -> None:
    """What is least important, and it says which; ids, amounts and times are whole."""
    lines = drawn(92)
    assert lines[2] == f"{ID}  1986 Kylian Mbapp…  1,037.58  2026-12-03 01:22"
    assert lines[-1] == "(not shown in 92 columns: pack)"
    lines = drawn(80)
    assert lines[2] == f"{ID}  1986 Kylian Mbappé Holo…  1,037.58"
    assert lines[-1] == "(not shown in 80 columns: offer ends, UTC, pack)"
    assert max(map(len, lines)) == 80


def test_then_each_row_is_a_list() -> None:
    """Nothing is missing from it but what is empty."""
    lines = drawn(60)
    assert lines[:6] == [
        f"id               {ID}",
        "card             1986 Kylian Mbappé Holo First Edition",
        "USD              1,037.58",
        "offer ends, UTC  2026-12-03 01:22",
        "pack             neon-evolutions-holiday",
        "",
    ]
    assert len(lines) == 11


def test_what_is_read_and_not_copied_goes_on_below() -> None:
    """Between words; what has none is whole, also where that is too wide."""
    rows = [("call", "ok", "a text of some words which is long"), ("TLS", "ok", "https://example.com/of-a-long-place")]
    assert list(draw(("", "state", "found"), rows, 40, ())) == [
        "      state  found",
        "─" * 40,
        "call  ok     a text of some words which",
        "             is long",
        "TLS   ok     https://example.com/of-a-long-place",
    ]


def test_what_a_row_begins_with_stays() -> None:
    """Whole, whatever it is; of a run, the names of its counts."""
    lines = list(draw(("run", "a-name-that-is-long"), [("users with changes", "2")], 39, ()))
    assert lines[2] == "users with changes  2"
    lines = list(draw(("run", "failed"), [("a-name-that-is-long", "2")], 20, ()))
    assert lines == ["run     a-name-that-is-long", "failed  2", ""]


def test_letters_of_two_cells() -> None:
    """They are counted as two."""
    lines = list(
        draw(("id", "card", "USD"), [("1", "ポケモンカードゲーム", "1.00"), ("2", "Pikachu", "12.00")], 28, RIGHT)
    )
    assert lines[2:] == ["1   ポケモンカードゲ…   1.00", "2   Pikachu            12.00"]


@pytest.mark.usefixtures("terminal")
def test_what_comes_from_outside_is_no_markup(server: Server, tmp_path: Path) -> None:
    """A run's name, a user's, a card's, a pack's: each is printed as it is."""
    name = "a[/b][red]\x1b[1m"
    shown = "a[/b][red] [1m"
    server.item("u[/b]", name="[bold]Charizard[/bold]")
    ids, store = tmp_path / "ids.txt", str(tmp_path / "users.db")
    ids.write_text("u[/b]\nn[/b]\n")
    result = server.run("refresh", "--ids", str(ids), "--store", store, "--run", name)
    assert result.exit_code == Exit.DONE, result.stderr
    assert shown in result.stdout
    result = server.run("changes", "--store", store)
    assert shown in result.stdout
    assert "n[/b]" in result.stdout
    result = server.run("inventory", "--ids", str(ids))
    assert "u[/b]  " in result.stdout
    assert "n[/b]: get_inventory: 404" in result.stderr
    assert "[bold]Charizard[/bold]" in server.run("inventory", "u[/b]").stdout
