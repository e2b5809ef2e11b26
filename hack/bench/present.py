"""The text of a volume group with many volumes, made from that of one. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from csi_driver.backends import lvmtags
from csi_driver.errors import Unready
from csi_driver.ids import new_id
from csi_driver.records import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UUID_GROUPS = (6, 4, 4, 4, 4, 4, 6)
TAGS = re.compile(r"tags = \[(.*?)\]")


def with_copies(text: str, template: str, scope: str, device_ids: Sequence[int]) -> str:
    """Return a group's text with a copy of one volume for each thin device. Raises Unready when it isn't there."""
    section = re.search(rf"^\t\tsluice-{template} \{{.*?^\t\t\}}\n", text, re.DOTALL | re.MULTILINE)
    if section is None:
        raise Unready(f"the group's text has no volume {template}")
    return text[: section.end()] + "".join(_copies(section[0], scope, device_ids)) + text[section.end() :]


def _copies(section: str, scope: str, device_ids: Sequence[int]) -> Iterator[str]:
    found = TAGS.search(section)
    passport = lvmtags.read(re.findall('"(.*?)"', found[1])) if found else None
    if found is None or passport is None:
        raise Unready("the volume that is to be copied has no passport in its tags")
    for number, device_id in enumerate(device_ids):
        name = f"present-{number}"
        record_id = new_id(scope, Volume.KIND, name)
        tags = ", ".join(f'"{tag}"' for tag in lvmtags.write(dataclasses.replace(passport, id=record_id, name=name)))
        copy = section.replace(found[0], f"tags = [{tags}]", 1)
        copy = copy.replace(f"sluice-{passport.id}", f"sluice-{record_id}", 1)
        copy = re.sub(r'id = "[^"]*"', f'id = "{_uuid(number)}"', copy, count=1)
        yield re.sub(r"device_id = \d+", f"device_id = {device_id}", copy, count=1)


def _uuid(number: int) -> str:
    """Return a UUID as lvm writes them."""
    digits = iter(f"{number:032d}")
    return "-".join("".join(next(digits) for _ in range(count)) for count in UUID_GROUPS)
