"""How a server is set up: one frozen value, from flags and a TOML file. Unknown keys are errors."""

from __future__ import annotations

import dataclasses
import re
import socket
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csi_driver.errors import Invalid
from qos.iocost import Measured, Speed
from qos.quantity import BadQuantity, parse_bytes
from qos.rates import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER_NAME = "csi.sluice.dev"
BACKENDS = ("loop", "lvm")
RATIOS = {"lvm": 1.5}
"""Bytes that a pool promises for each byte there is, where its owner doesn't say. A checkpoint volume is made for more
than it holds (`sluice size`): of 630 GB 140 to 420 are written. So at 1.5 a pool of such volumes is two thirds full on
average, below the guard's warning, and just full when all are at their fullest. Snapshots count in full beside them.
Elsewhere 1: a loop pool shares its file system with whatever else is there, and promises nothing that can't be kept."""
LVM_KEYS = ("vg", "thinpool")
POOLS_FILE = "pools.toml"
"""In the state folder: the pools that `sluice pool create` made, in the form of `[[pools]]`."""
OUR_DEVICES = "sluice-"
"""What mapped devices of volumes begin with. Those of a group's logical volumes begin with the group's name."""
LVM_NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,62}")
ROLES = ("all", "controller", "node")
QOS = ("enforce", "off")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LOG_FORMATS = ("console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Name a pool of this node.

    name      what classes call it in their parameter `pool`
    backend   loop or lvm
    path      of loop the folder of the pool, absolute; of lvm VG/THINPOOL, given as `vg=VG,thinpool=LV`
    size      bytes of an XFS image that is made in the folder and holds the pool; 0: the folder itself does
    ratio     bytes that may be promised for each byte the pool can hold; 1 promises nothing that can't be kept
    """

    name: str
    backend: str
    path: Path
    size: int = 0
    ratio: float = 1.0

    @classmethod
    def parse(cls, text: str) -> PoolConfig:
        """Read `name=NAME,backend=loop,path=DIR[,size=10Gi][,ratio=1.5]`, or with `backend=lvm,vg=VG,thinpool=LV`.

        Raises Invalid naming the key.
        """
        given = {}
        for part in text.split(","):
            key, equals, value = part.partition("=")
            if not equals or key in given:
                raise Invalid(f"pool: {text!r} must be key=value pairs, each key once; {part!r} is not")
            given[key] = value
        return cls.of(given)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PoolConfig:
        """Check a pool's keys. Raises Invalid naming the key and its value."""
        _known("pool", given, {field.name for field in dataclasses.fields(cls)} | set(LVM_KEYS))
        where = LVM_KEYS if given.get("backend") == "lvm" else ("path",)
        for key in ("name", "backend", *where):
            if not given.get(key):
                raise Invalid(f"pool: {key} is missing in {dict(given)}")
        name, backend, path = str(given["name"]), str(given["backend"]), Path(*(str(given[key]) for key in where))
        if not name.replace("-", "").replace(".", "").isalnum() or len(name) > 63:  # noqa: PLR2004 - a DNS label
            raise Invalid(f"pool: name {name!r} must be letters, digits, '-' and '.', at most 63")
        if backend not in BACKENDS:
            raise Invalid(f"pool {name}: backend {backend!r} is not known; there are {', '.join(BACKENDS)}")
        if backend == "lvm":
            _check_lvm(name, given)
        elif not path.is_absolute() or ".." in path.parts:
            raise Invalid(f"pool {name}: path {str(path)!r} is not absolute")
        return cls(
            name,
            backend,
            path,
            _size(name, given.get("size", 0)),
            _ratio(name, given.get("ratio", RATIOS.get(backend, 1.0))),
        )


@dataclass(frozen=True, slots=True)
class Config:
    """Hold every setting of a server.

    endpoint     where CSI is served: unix:// and an absolute path
    role         all, controller or node
    node_id      this node's name, as CSI and topology show it
    state        the folder of the records
    pools        this node's pools
    tiers        a file with tiers of the user's own, or None
    qos          enforce, or off where the kernel has no io controller: nothing is limited then
    ancestor     auto, or the cgroup above all pods
    metrics      HOST:PORT to serve Prometheus metrics at, "" for none
    disks        what disks can do, by serial number or kernel name, by the word of who owns them
    trim_every   seconds between two trims (fstrim) of a staged volume, 0 for none. A day: what one tenant frees is
                 another's room where more is promised than there is, and a second trim of the same blocks costs little
    driver_name  what CSI calls the driver
    cluster_id   what ids are made from, beside names; the same for all nodes of a cluster
    """

    endpoint: str = "unix:///run/sluice/csi.sock"
    role: str = "all"
    node_id: str = dataclasses.field(default_factory=socket.gethostname)
    state: Path = Path("/var/lib/sluice")
    pools: tuple[PoolConfig, ...] = ()
    tiers: Path | None = None
    qos: str = "enforce"
    ancestor: str = "auto"
    metrics: str = ""
    disks: Mapping[str, Measured] = dataclasses.field(default_factory=dict)
    trim_every: float = 86400.0
    log_format: str = "console"
    log_level: str = "info"
    driver_name: str = DRIVER_NAME
    cluster_id: str = "local"

    @property
    def scope(self) -> str:
        """Return what ids are made in: two drivers, or two clusters, never share one."""
        return f"{self.cluster_id}/{self.driver_name}"

    @property
    def topology_key(self) -> str:
        """Return the key that names a node in CSI topologies."""
        return f"{self.driver_name}/node"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Config:
        """Check settings by name; those that are None keep their default. Raises Invalid naming the setting."""
        given = {key.replace("-", "_"): value for key, value in given.items() if value is not None}
        _known("setting", given, {field.name for field in dataclasses.fields(cls)})
        for key, choices in (("role", ROLES), ("qos", QOS), ("log_format", LOG_FORMATS), ("log_level", LOG_LEVELS)):
            if given.get(key, choices[0]) not in choices:
                raise Invalid(f"{key}: {given[key]!r} is none of {', '.join(choices)}")
        for key in ("state", "tiers"):
            if key in given:
                given[key] = Path(given[key]).absolute()
        if "trim_every" in given:
            given["trim_every"] = _seconds("trim-every", given["trim_every"])
        if "disks" in given:
            given["disks"] = {name: _disk(name, figures) for name, figures in given["disks"].items()}
        if "pools" in given:
            given["pools"] = tuple(_pool(pool) for pool in given["pools"])
            names = [pool.name for pool in given["pools"]]
            if twice := {name for name in names if names.count(name) > 1}:
                raise Invalid(f"pool: the name {twice.pop()!r} is given twice")
        return cls(**given)

    @classmethod
    def load(cls, file: Path | None, flags: Mapping[str, Any]) -> Config:
        """Read a TOML file, the keys of which are the flags' names, `[[pools]]` and `[disks.NAME]`; flags win.

        The pools that the state folder keeps are added. Raises Invalid.
        """
        settings = _toml(file) if file is not None else {}
        settings = {key.replace("-", "_"): value for key, value in settings.items()}
        config = cls.of({**settings, **{key: value for key, value in flags.items() if value is not None}})
        kept = kept_pools(config.state)
        if twice := {pool.name for pool in config.pools} & {pool.name for pool in kept}:
            given = "--pool" if flags.get("pools") else file
            raise Invalid(
                f"pool: the name {min(twice)!r} is given by {given}, and kept in {config.state / POOLS_FILE} too: "
                "take it out of one of them"
            )
        return dataclasses.replace(config, pools=(*config.pools, *kept))


def kept_pools(state: Path) -> tuple[PoolConfig, ...]:
    """Return the pools that a state folder keeps, none where it has no such file. Raises Invalid."""
    file = state / POOLS_FILE
    if not file.exists():
        return ()
    given = _toml(file)
    _known(str(file), given, {"pools"})
    return Config.of(given).pools


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise Invalid(f"config: {file} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"config: {file} is not TOML: {error}") from error


def _pool(given: PoolConfig | str | Mapping[str, Any]) -> PoolConfig:
    if isinstance(given, PoolConfig):
        return given
    return PoolConfig.parse(given) if isinstance(given, str) else PoolConfig.of(given)


def _disk(name: str, given: Any) -> Measured:  # noqa: ANN401 - from a file
    """Return what a disk does by its owner's word: IOPS of 4 KiB and bytes a second, as clouds sell them."""
    if not isinstance(given, dict):
        raise Invalid(f"disks: {name!r} must be a table: write [disks.{name!r}]")
    _known(f"disks.{name}", given, set(UNITS))
    if missing := UNITS.keys() - given.keys():
        raise Invalid(f"disks.{name}: {', '.join(sorted(missing))} is missing: a disk needs all of {', '.join(UNITS)}")
    figures = {}
    for key, unit in UNITS.items():
        try:
            figures[key] = unit.parse(str(given[key]))
        except BadQuantity as error:
            raise Invalid(f"disks.{name}: {key}: {error}") from error
    try:
        read = Speed.rated(figures["readIOPS"], figures["readBPS"])
        return Measured(read, Speed.rated(figures["writeIOPS"], figures["writeBPS"]))
    except ValueError as error:
        raise Invalid(f"disks.{name}: {dict(given)}: {error}") from error


def _known(what: str, given: Mapping[str, Any], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise Invalid(f"{what}: {key!r} is not known; there are {', '.join(sorted(known))}")


def _check_lvm(pool: str, given: Mapping[str, Any]) -> None:
    for key in LVM_KEYS:
        if not LVM_NAME.fullmatch(str(given[key])):
            raise Invalid(f"pool {pool}: {key} {given[key]!r} is no name that LVM takes")
    if f"{given['vg']}-".startswith(OUR_DEVICES):  # its mapped devices are VG-LV
        raise Invalid(f"pool {pool}: vg {given['vg']!r} begins as our own devices do: rename it by vgrename")
    for key in ("path", "size"):
        if given.get(key):
            raise Invalid(f"pool {pool}: {key} is for backend loop; a thin pool has the size that lvs says")


def _size(pool: str, value: Any) -> int:  # noqa: ANN401 - from a file
    try:
        return parse_bytes(value) if isinstance(value, str) else int(value)
    except (BadQuantity, TypeError, ValueError) as error:
        raise Invalid(f"pool {pool}: size: {error}") from error


def _seconds(setting: str, value: Any) -> float:  # noqa: ANN401 - from a file
    """Return the seconds of a time such as 90s, 30m, 24h or 7d, or 0. Raises Invalid naming the setting."""
    number, unit = str(value), ""
    if number[-1:] in SECONDS:
        number, unit = number[:-1], number[-1]
    if not number.isdecimal() or (unit == "" and number != "0"):
        raise Invalid(f"{setting}: {value!r} is not a time: write 24h, 7d, or 0 for never")
    return float(number) * SECONDS.get(unit, 1)


def _ratio(pool: str, value: Any) -> float:  # noqa: ANN401 - from a file
    try:
        ratio = float(value)
    except (TypeError, ValueError) as error:
        raise Invalid(f"pool {pool}: ratio {value!r} is not a number") from error
    if not 0 < ratio <= 1000:  # noqa: PLR2004 - beyond it is surely a slip
        raise Invalid(f"pool {pool}: ratio {value!r} is not above 0 and at most 1000")
    return ratio
