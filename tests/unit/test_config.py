"""Settings from flags and a file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from csi_driver.cli import poolfile
from csi_driver.config import POOLS_FILE, Config, PoolConfig
from csi_driver.errors import Invalid
from csi_driver.host.syscalls import Kernel
from qos.iocost import Measured, Speed


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """The same settings stand in both, by the same names."""
    file = tmp_path / "sluice.toml"
    file.write_text(
        'node-id = "n1"\nqos = "off"\nstate = "/var/lib/x"\n'
        '[[pools]]\nname = "fast"\nbackend = "loop"\npath = "/srv/fast"\nsize = "10Gi"\nratio = 2\n'
    )
    config = Config.load(file, {"qos": "enforce", "node_id": None})

    assert (config.node_id, config.qos, config.state) == ("n1", "enforce", Path("/var/lib/x"))
    assert config.pools == (PoolConfig("fast", "loop", Path("/srv/fast"), 10 << 30, 2.0),)
    assert config.pools == Config.of({"pools": ["name=fast,backend=loop,path=/srv/fast,size=10Gi,ratio=2"]}).pools


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"colour": "red"}, "setting: 'colour' is not known"),
        ({"role": "chief"}, "role: 'chief' is none of all, controller, node"),
        ({"qos": "maybe"}, "qos: 'maybe'"),
        ({"pools": ["fast"]}, "'fast' is not"),
        ({"pools": ["name=a,name=b,backend=loop,path=/p"]}, "each key once"),
        ({"pools": ["name=a,backend=loop"]}, "path is missing"),
        ({"pools": ["name=a,backend=tape,path=/p"]}, "backend 'tape'"),
        ({"pools": ["name=a,backend=loop,path=p"]}, "path 'p' is not absolute"),
        ({"pools": ["name=a,backend=loop,path=/p/../q"]}, "is not absolute"),
        ({"pools": ["name=a/b,backend=loop,path=/p"]}, "name 'a/b'"),
        ({"pools": ["name=a,backend=loop,path=/p,size=much"]}, "size: "),
        ({"pools": ["name=a,backend=loop,path=/p,ratio=0"]}, "ratio '0'"),
        ({"pools": ["name=a,backend=loop,path=/p,colour=red"]}, "pool: 'colour' is not known"),
        ({"pools": ["name=a,backend=loop,path=/p", "name=a,backend=loop,path=/q"]}, "'a' is given twice"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(given: dict[str, object], says: str) -> None:
    """One line that says which setting to mend."""
    with pytest.raises(Invalid) as caught:
        Config.of(given)

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    file = tmp_path / "sluice.toml"
    file.write_text("= nothing")

    with pytest.raises(Invalid, match=r"sluice\.toml is not TOML"):
        Config.load(file, {})
    with pytest.raises(Invalid, match="can't be read"):
        Config.load(tmp_path / "none.toml", {})


def test_a_pool_promises_as_much_as_its_backend_lets_it_unless_its_owner_says() -> None:
    """A folder promises what it has, a thin pool half as much again."""
    config = Config.of(
        {
            "pools": [
                "name=a,backend=loop,path=/p",
                "name=b,backend=lvm,vg=v,thinpool=t",
                "name=c,backend=lvm,vg=v,thinpool=u,ratio=1",
            ]
        }
    )

    assert [pool.ratio for pool in config.pools] == [1.0, 1.5, 1.0]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("24h", 86400.0), ("7d", 604800.0), ("0", 0.0)]
)
def test_a_time_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    """As people write it; 0 is never."""
    assert Config.of({"trim_every": text}).trim_every == seconds


@pytest.mark.parametrize("text", ["", "h", "5", "-1h", "1.5h", "1w", "²s"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    """Five of what, is asked."""
    with pytest.raises(Invalid, match=f"trim-every: '{text}' is not a time: write 24h"):
        Config.of({"trim_every": text})


def test_what_a_disk_can_do_is_taken_from_its_owner() -> None:
    """As clouds sell them: IOPS and bytes a second, reads and writes apart."""
    figures = {"readIOPS": 1000, "writeIOPS": "1k", "readBPS": "50Mi", "writeBPS": "25Mi"}
    config = Config.of({"disks": {"S1": figures}})

    assert config.disks == {"S1": Measured(Speed.rated(1000, 50 << 20), Speed.rated(1000, 25 << 20))}
    assert Config.of({}).disks == {}


@pytest.mark.parametrize(
    ("disks", "says"),
    [
        ({"S1": 5}, r"disks: 'S1' must be a table: write \[disks.'S1'\]"),
        ({"S1": {"readIOPS": 5}}, r"disks.S1: readBPS, writeBPS, writeIOPS is missing"),
        ({"S1": {"colour": 5}}, r"disks.S1: 'colour' is not known"),
        ({"S1": dict.fromkeys(("readIOPS", "writeIOPS", "readBPS", "writeBPS"), "x")}, r"disks.S1: readIOPS: 'x'"),
        ({"S1": dict.fromkeys(("readIOPS", "writeIOPS", "readBPS", "writeBPS"), 0)}, r"disks.S1: .* is not a speed"),
    ],
)
def test_what_a_disk_cant_do_is_refused_by_name(disks: dict[str, object], says: str) -> None:
    """A floor that is reckoned from a slip is no floor."""
    with pytest.raises(Invalid, match=says):
        Config.of({"disks": disks})


def test_pools_that_the_state_folder_keeps_are_added(tmp_path: Path) -> None:
    """So what `sluice pool create` made is served without more words."""
    kept = PoolConfig("fast", "lvm", Path("fast/thin"), ratio=2.0)
    poolfile.keep(tmp_path, PoolConfig("slow", "loop", Path("/srv/slow"), 10 << 30), Kernel())
    file = poolfile.keep(tmp_path, kept, Kernel())
    config = Config.load(None, {"state": tmp_path, "pools": ["name=more,backend=loop,path=/p"]})

    assert [pool.name for pool in config.pools] == ["more", "slow", "fast"]
    assert config.pools[2] == kept
    assert config.pools[1].size == 10 << 30
    assert (file.stat().st_mode & 0o777, [path.name for path in tmp_path.iterdir()]) == (0o600, [POOLS_FILE])


def test_a_pool_is_written_as_it_is_read() -> None:
    """The words for the flag and those for a file say the same."""
    pool = PoolConfig.parse("name=fast,backend=lvm,vg=v,thinpool=t,ratio=3")

    assert PoolConfig.parse(poolfile.words(pool)) == pool
    assert Config.of(tomllib.loads(poolfile.toml(pool))).pools == (pool,)


def test_a_name_that_is_given_and_kept_is_refused_naming_both_places(tmp_path: Path) -> None:
    """Which of the two is meant, nobody can say."""
    poolfile.keep(tmp_path, PoolConfig("fast", "lvm", Path("fast/thin")), Kernel())
    file = tmp_path / "sluice.toml"
    file.write_text('[[pools]]\nname = "fast"\nbackend = "loop"\npath = "/p"\n')

    with pytest.raises(Invalid, match=r"'fast' is given by --pool, and kept in .*pools\.toml"):
        Config.load(None, {"state": tmp_path, "pools": ["name=fast,backend=loop,path=/p"]})
    with pytest.raises(Invalid, match=r"'fast' is given by .*sluice\.toml, and kept in .*pools\.toml"):
        Config.load(file, {"state": tmp_path})


def test_a_kept_file_with_other_settings_is_refused(tmp_path: Path) -> None:
    """It holds pools and nothing else."""
    (tmp_path / POOLS_FILE).write_text('qos = "off"\n')

    with pytest.raises(Invalid, match=r"pools\.toml: 'qos' is not known"):
        Config.load(None, {"state": tmp_path})


def test_a_group_whose_devices_would_look_like_ours_is_refused() -> None:
    """Mapped devices that begin with sluice- are taken for volumes: resumed at a start, counted, removed."""
    with pytest.raises(Invalid, match="'sluice-fast' begins as our own devices do"):
        PoolConfig.parse("name=fast,backend=lvm,vg=sluice-fast,thinpool=thin")
