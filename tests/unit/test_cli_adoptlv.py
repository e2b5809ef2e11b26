"""`sluice adopt --lv`: what is refused, and that nothing is changed without --yes."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from csi_driver.backends import lvmtags
from csi_driver.cli import adoptlv
from csi_driver.cli.adoptlv import Wanted
from csi_driver.config import Config
from csi_driver.errors import Conflict, InUse, Invalid, NotFound, StorageError, Unready
from csi_driver.host import block
from csi_driver.host.block import Device
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.dmtable import Info
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.thinpool import Lv, ThinPools
from csi_driver.ids import new_id
from csi_driver.records import Volume
from qos.limits import DevNo
from tests.unit.test_thin_pools import SOUND

POOL = "name=fast,backend=lvm,vg=fast,thinpool=thin"
INFO = Info("fast-mine", "", Device(Path("/dev/dm-3"), DevNo(253, 3)), False, False, 0, ())


class Host:
    """What stands in the pool, and what was changed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.id = new_id(config.scope, Volume.KIND, "old")
        self.info: Info | None = INFO
        self.commands: list[tuple[str, ...]] = []
        left = ("sluice:id=of-an-attempt-before", "keep:this")
        self.lvs = [*SOUND.lvs, Lv("mine", 1 << 30, "thin", private=False, tags=left)]

    def has(self, name: str, pool: str = "thin") -> None:
        self.lvs.append(Lv(name, 1, pool, private=False, tags=()))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Give a pool with a volume of an administrator's, on which an attempt before left a tag."""
    host = Host(Config.of({"state": tmp_path / "state", "pools": [POOL]}))
    monkeypatch.setattr(ThinPools, "look", lambda *_: dataclasses.replace(SOUND, lvs=tuple(host.lvs)))
    monkeypatch.setattr(ThinPools, "mend", lambda _, __, argv: host.commands.append(tuple(argv)))
    monkeypatch.setattr(DeviceMapper, "info", lambda *_: host.info)
    monkeypatch.setattr(Filesystems, "kind", lambda *_: "xfs")
    monkeypatch.setattr(block, "sector_size", lambda _: 512)
    return host


def test_a_plan_changes_nothing(host: Host) -> None:
    """It says what would be."""
    said = adoptlv.take(host.config, Wanted("fast/mine", "old", "inference"), yes=False)

    assert said == f"fast/mine, which holds xfs, would be fast/sluice-{host.id}: volume old"
    assert host.commands == []


def test_the_passport_comes_before_the_name(host: Host) -> None:
    """So that a cut in between is mended by doing it again; tags of others stay."""
    adoptlv.take(host.config, Wanted("fast/mine", "old", "inference"), yes=True)
    change, rename = host.commands
    added = [tag for word, tag in itertools.pairwise(change) if word == "--addtag"]
    passport = lvmtags.read(added)

    assert change[:3] == ("lvchange", "--deltag", "sluice:id=of-an-attempt-before")
    assert "keep:this" not in change
    assert passport is not None
    assert (passport.id, passport.name, passport.tier) == (host.id, "old", "inference")
    assert (passport.format_done, passport.sector_size) == ("xfs", 512)
    assert rename == ("lvrename", "fast/mine", f"fast/sluice-{host.id}")


@pytest.mark.parametrize(
    ("lv", "tier", "error", "words"),
    [
        ("fast/mine", "gold", Invalid, "no tier 'gold'"),
        ("fast/none", "standard", NotFound, "no thin volume fast/none"),
        ("slow/mine", "standard", NotFound, "no thin volume slow/mine"),
        ("mine", "standard", NotFound, "no thin volume mine"),
        ("fast/thin", "standard", NotFound, "no thin volume fast/thin"),
        ("fast/thick", "standard", NotFound, "no thin volume fast/thick"),
        ("fast/sluice-x", "standard", Invalid, "our form of name"),
    ],
)
def test_what_is_no_volume_to_take_is_refused(
    host: Host, lv: str, tier: str, error: type[StorageError], words: str
) -> None:
    """Only a thin volume, in a pool of this node, that isn't ours."""
    host.has("thick", pool="")
    host.has("sluice-x")

    with pytest.raises(error, match=words):
        adoptlv.take(host.config, Wanted(lv, "old", tier), yes=True)
    assert host.commands == []


def test_a_name_that_is_taken_is_refused(host: Host) -> None:
    """Two volumes would have one id."""
    host.has(f"sluice-{host.id}")

    with pytest.raises(Conflict, match="a volume old already"):
        adoptlv.take(host.config, Wanted("fast/mine", "old", "standard"), yes=True)


@pytest.mark.parametrize(
    ("info", "error", "words"),
    [(dataclasses.replace(INFO, open_count=1), InUse, "unmount"), (None, Unready, "lvchange -ay -K fast/mine")],
)
def test_one_that_is_in_use_or_inactive_is_refused(
    host: Host, info: Info | None, error: type[StorageError], words: str
) -> None:
    """It must be looked at, by nobody else meanwhile."""
    host.info = info

    with pytest.raises(error, match=words):
        adoptlv.take(host.config, Wanted("fast/mine", "old", "standard"), yes=True)
    assert host.commands == []
