"""What callers name things reaches a terminal as text, and does nothing there."""

from __future__ import annotations

import pytest

from csi_driver.cli.volumes import Line, print_table
from csi_driver.records import Failure, Seen, Status, Volume, VolumeSpec

NAMES = ["\x1b[31mred", "\x1b]0;title\x07", "[bold]x[/]", "[/nothing]", "a\rb", "a\nb", "\x9b2J", "\u202eevil"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_shown_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In the table and in what is wrong below it: neither markup nor an order to the terminal."""
    status = Status(seen=Seen(error=Failure(1, "Unready", f"{name} is stuck")))
    print_table([Line(Volume("id", VolumeSpec(name, 4096), status), "fast", None, None, "", "")], wide=False)
    said = capsys.readouterr().out

    assert {"\x1b", "\x9b", "\x07", "\r"}.isdisjoint(said)
    assert "stuck" in said
    assert name.strip("\x1b\x9b")[:1] in said
