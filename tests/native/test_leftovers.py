"""After all tests: the machine is as it was."""

from __future__ import annotations

import pytest

from tests.leftovers import Leftovers
from tests.serving import PREFIX

pytestmark = [pytest.mark.native, pytest.mark.last]


def test_nothing_of_any_test_is_left_on_this_machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Loop devices, mapped devices, mounts and servers of the tests are gone."""
    ours = (PREFIX, str(tmp_path_factory.getbasetemp()), "mapped device sluice-")

    assert sorted(Leftovers.now(*ours).things) == []
