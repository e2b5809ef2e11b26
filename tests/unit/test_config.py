"""Settings from flags and a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_driver.config import Config, PoolConfig
from csi_driver.errors import Invalid


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
