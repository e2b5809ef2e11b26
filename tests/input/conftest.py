"""What the tests of bad input share: a server on a fake machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.input.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server with volumes in every state."""
    made = Served(tmp_path_factory.mktemp("served"))
    try:
        made.furnish()
        yield made
    finally:
        made.close()
