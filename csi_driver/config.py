"""How a server is set up: one frozen value, from flags and a TOML file. Unknown keys are errors."""

from __future__ import annotations

import dataclasses
import socket
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csi_driver.errors import Invalid
from qos.quantity import BadQuantity, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER_NAME = "csi.sluice.dev"
BACKENDS = ("loop",)
ROLES = ("all", "controller", "node")
QOS = ("enforce", "off")
LOG_FORMATS = ("console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Name a pool of this node.

    name      what classes call it in their parameter `pool`
    backend   loop
    path      the folder of the pool, absolute
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
        """Read `name=NAME,backend=loop,path=DIR[,size=10Gi][,ratio=1.5]`. Raises Invalid naming the key."""
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
        _known("pool", given, {field.name for field in dataclasses.fields(cls)})
        for key in ("name", "backend", "path"):
            if not given.get(key):
                raise Invalid(f"pool: {key} is missing in {dict(given)}")
        name, backend, path = str(given["name"]), str(given["backend"]), Path(str(given["path"]))
        if not name.replace("-", "").replace(".", "").isalnum() or len(name) > 63:  # noqa: PLR2004 - a DNS label
            raise Invalid(f"pool: name {name!r} must be letters, digits, '-' and '.', at most 63")
        if backend not in BACKENDS:
            raise Invalid(f"pool {name}: backend {backend!r} is not known; there are {', '.join(BACKENDS)}")
        if not path.is_absolute() or ".." in path.parts:
            raise Invalid(f"pool {name}: path {str(path)!r} is not absolute")
        return cls(name, backend, path, _size(name, given.get("size", 0)), _ratio(name, given.get("ratio", 1.0)))


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
        if "pools" in given:
            given["pools"] = tuple(_pool(pool) for pool in given["pools"])
            names = [pool.name for pool in given["pools"]]
            if twice := {name for name in names if names.count(name) > 1}:
                raise Invalid(f"pool: the name {twice.pop()!r} is given twice")
        return cls(**given)

    @classmethod
    def load(cls, file: Path | None, flags: Mapping[str, Any]) -> Config:
        """Read a TOML file, the keys of which are the flags' names and `[[pools]]`; flags win. Raises Invalid."""
        settings: dict[str, Any] = {}
        if file is not None:
            try:
                settings = tomllib.loads(file.read_text())
            except OSError as error:
                raise Invalid(f"config: {file} can't be read: {error.strerror}") from error
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise Invalid(f"config: {file} is not TOML: {error}") from error
        settings = {key.replace("-", "_"): value for key, value in settings.items()}
        return cls.of({**settings, **{key: value for key, value in flags.items() if value is not None}})


def _pool(given: PoolConfig | str | Mapping[str, Any]) -> PoolConfig:
    if isinstance(given, PoolConfig):
        return given
    return PoolConfig.parse(given) if isinstance(given, str) else PoolConfig.of(given)


def _known(what: str, given: Mapping[str, Any], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise Invalid(f"{what}: {key!r} is not known; there are {', '.join(sorted(known))}")


def _size(pool: str, value: Any) -> int:  # noqa: ANN401 - from a file
    try:
        return parse_bytes(value) if isinstance(value, str) else int(value)
    except (BadQuantity, TypeError, ValueError) as error:
        raise Invalid(f"pool {pool}: size: {error}") from error


def _ratio(pool: str, value: Any) -> float:  # noqa: ANN401 - from a file
    try:
        ratio = float(value)
    except (TypeError, ValueError) as error:
        raise Invalid(f"pool {pool}: ratio {value!r} is not a number") from error
    if not 0 < ratio <= 1000:  # noqa: PLR2004 - beyond it is surely a slip
        raise Invalid(f"pool {pool}: ratio {value!r} is not above 0 and at most 1000")
    return ratio
