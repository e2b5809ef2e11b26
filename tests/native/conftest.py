"""What native tests share: a server, and the proof that nothing is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.serving import Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Server]:
    """Give a server that serves, with a pool of its own."""
    with Server() as running:
        yield running
