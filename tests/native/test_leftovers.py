"""After all tests: the machine is as it was."""

from __future__ import annotations

import pytest

from tests.leftovers import AT_START, Leftovers
from tests.serving import PREFIX

pytestmark = [pytest.mark.native, pytest.mark.last]


def test_nothing_of_any_test_is_left_on_this_machine(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Loop devices, mapped devices, mounts and servers of the tests are gone. What lay here before isn't theirs."""
    ours = (PREFIX, str(tmp_path_factory.getbasetemp()), "mapped device sluice-")

    assert Leftovers.now(*ours).since(pytestconfig.stash[AT_START]) == []
