"""Tiers as data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qos import tiers
from qos.rates import Rate
from qos.tiers import BadTier, Enforce, Provision, Tier

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30


def load(tmp_path: Path, text: str) -> dict[str, Tier]:
    """Load a user's file with the given text."""
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return dict(tiers.load(file))


def test_the_default_tier_has_no_limits() -> None:
    """Who asked for none gets none."""
    standard = tiers.load()[tiers.DEFAULT]

    assert set(standard.rates().values()) == {None}


def test_the_built_in_tiers_must_be_enforced() -> None:
    """A training job that runs unlimited is what the driver is there to stop."""
    built_in = tiers.load()

    assert set(built_in) == {"standard", "training", "inference", "weights", "vector-db", "scratch"}
    assert all(tier.enforce is Enforce.REQUIRED for tier in built_in.values())


@pytest.mark.parametrize("size", [GIB, 20 * GIB, 500 * GIB, 8192 * GIB])
@pytest.mark.parametrize(
    ("name", "request_kib"),
    [("training", 16), ("inference", 128), ("weights", 128), ("vector-db", 32), ("scratch", 16)],
)
def test_both_ceilings_meet_at_the_request_that_a_tiers_programs_make(name: str, request_kib: int, size: int) -> None:
    """Whatever the size: neither makes the other vain."""
    tier = tiers.load()[name]
    assert tier.read_bps is not None
    assert tier.read_iops is not None

    per_request = tier.read_bps.at(size) / tier.read_iops.at(size)

    assert per_request == pytest.approx(request_kib * 1024, rel=0.03)  # 125 MiB over 1,000 is not quite 128 KiB


def test_only_scratch_is_thick() -> None:
    """All others have snapshots, and share a pool's bytes by need."""
    assert [tier.name for tier in tiers.load().values() if tier.provision is Provision.THICK] == ["scratch"]


def test_a_file_adds_tiers_and_replaces_whole_ones(tmp_path: Path) -> None:
    """Nothing of the replaced tier shines through."""
    loaded = load(tmp_path, '[training]\nreadIOPS = 500\n[gold]\nfsType = "btrfs"\nmkfsOptions = ["-K"]\n')

    assert loaded["training"] == Tier(name="training", read_iops=Rate(absolute=500))
    assert loaded["gold"] == Tier(name="gold", fs_type="btrfs", mkfs_options=("-K",))
    assert loaded["inference"] == tiers.load()["inference"]


def test_every_key_has_its_field(tmp_path: Path) -> None:
    """No key is read into another one's place."""
    text = (
        '[all]\ndescription = "d"\nreadIOPS = "1k"\nwriteIOPS = "2k"\nreadBPS = "3Mi"\nwriteBPS = "4Mi/Gi"\n'
        'enforce = "best-effort"\nfsType = "xfs"\nmountOptions = ["noatime"]\nmkfsOptions = ["-m", "bigtime=1"]\n'
        "readAheadKiB = 256\nyields = true\nprovision = 'thick'\n"
    )

    assert load(tmp_path, text)["all"] == Tier(
        name="all",
        description="d",
        read_iops=Rate(absolute=1000),
        write_iops=Rate(absolute=2000),
        read_bps=Rate(absolute=3 * 2**20),
        write_bps=Rate(per_gib=4 * 2**20),
        enforce=Enforce.BEST_EFFORT,
        yields=True,
        provision=Provision.THICK,
        fs_type="xfs",
        mount_options=("noatime",),
        mkfs_options=("-m", "bigtime=1"),
        read_ahead_kib=256,
    )


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("readiops", '"5k"', "unknown key"),
        ("minIOPS", '"5Ki"', "5Ki"),
        ("burstBytes", '"5k"', "not supported yet"),
        ("readIOPS", '"lots"', "'lots'"),
        ("readIOPS", "1", "2"),
        ("readIOPS", "true", "True"),
        ("readBPS", "1.5", "1.5"),
        ("enforce", '"maybe"', "best-effort"),
        ("enforce", "[]", "best-effort"),
        ("yields", '"true"', "neither true nor false"),
        ("fsType", '"ntfs"', "ext4"),
        ("provision", '"fat"', "thick"),
        ("provision", "[]", "thick"),
        ("mountOptions", '"noatime"', "list"),
        ("mountOptions", '["a b"]', "list"),
        ("mkfsOptions", '[""]', "list"),
        ("mkfsOptions", "[1]", "list"),
        ("readAheadKiB", "5", "multiple of 4"),
        ("readAheadKiB", "-4", "multiple of 4"),
        ("readAheadKiB", '"4"', "multiple of 4"),
        ("description", "1", "text"),
    ],
)
def test_a_mistake_is_named_by_file_tier_and_key(tmp_path: Path, key: str, value: str, why: str) -> None:
    """Who reads the message knows where to look."""
    with pytest.raises(BadTier) as caught:
        load(tmp_path, f"[gold]\n{key} = {value}\n")

    assert f"{tmp_path}/mine.toml: gold: {key}: " in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize("text", ["[", "gold = 1", '["Gold Tier"]', "[-gold]", f"[{'g' * 64}]"])
def test_what_is_no_file_of_tiers_is_refused_by_file(tmp_path: Path, text: str) -> None:
    """Also when there is no tier yet to name."""
    with pytest.raises(BadTier, match=r"mine\.toml"):
        load(tmp_path, text)


def test_bytes_that_are_no_text_are_refused_by_file(tmp_path: Path) -> None:
    """A binary given by mistake is not a traceback."""
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(BadTier, match=r"mine\.toml"):
        tiers.load(file)


def test_a_file_that_is_missing_is_not_passed_over(tmp_path: Path) -> None:
    """A typing mistake in the flag must not leave the built-in tiers in force."""
    with pytest.raises(FileNotFoundError):
        tiers.load(tmp_path / "none.toml")
