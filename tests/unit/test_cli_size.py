"""`sluice size` and `sluice tiers`: the arithmetic, and what a slip is answered with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from csi_driver.cli import size, tiers
from csi_driver.errors import Invalid

if TYPE_CHECKING:
    from pathlib import Path


def run(app: object, *words: str) -> Result:
    return CliRunner().invoke(app, words)  # type: ignore[arg-type]


def test_seventy_billion_parameters_kept_three_times_need_630_gb() -> None:
    """140 GB x 3 x 1.5, and the claim's string is rounded up."""
    said = json.loads(run(size.app, "--parameters", "70B", "--precision", "bf16", "--keep", "3", "--json").stdout)

    assert said == {"model_bytes": 140 * 10**9, "keep": 3, "volume_bytes": 630 * 10**9, "storage": "587Gi"}


def test_gigabytes_give_the_same_as_parameters() -> None:
    """--gb is for who knows the checkpoint's size."""
    assert size.model_bytes(None, "bf16", 140.0) == size.model_bytes("70B", "bf16", None)


def test_a_claim_is_printed_to_be_copied() -> None:
    """The example claim carries the string."""
    result = run(size.app, "--gb", "140")

    assert "      storage: 587Gi\n" in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--gb", "1", "--parameters", "1B"),
        ("--parameters", "many"),
        ("--parameters", "0B"),
        ("--parameters", "7B", "--precision", "fp7"),
        ("--gb", "-1"),
        ("--gb", "nan"),
        ("--gb", "1", "--keep", "0"),
    ],
)
def test_a_slip_is_answered_with_what_to_write(words: tuple[str, ...]) -> None:
    """Each is Invalid, which the command line prints as one line."""
    result = run(size.app, *words)

    assert isinstance(result.exception, Invalid)


def test_tiers_are_shown_for_a_size() -> None:
    """The built-in training tier of 1 TiB writes at most 512 MiB/s."""
    said = {tier["name"]: tier for tier in json.loads(run(tiers.app, "--size", "1Ti", "--json").stdout)}

    assert set(said) == {"inference", "scratch", "standard", "training", "vector-db", "weights"}
    assert said["training"]["limits"]["wbps"] == 512 << 20
    assert not any(said["standard"]["limits"].values())


def test_a_tier_of_ones_own_is_shown_beside(tmp_path: Path) -> None:
    """--tiers adds a file's tiers."""
    file = tmp_path / "tiers.toml"
    file.write_text('[gold]\nreadIOPS = "3/Gi,100..16k"\n')

    result = run(tiers.app, "--tiers", str(file))

    assert "gold" in result.stdout
    assert "300" in result.stdout


@pytest.mark.parametrize("words", [("--size", "5x"), ("--size", "0"), ("--tiers", "/nonexistent")])
def test_wrong_input_to_tiers_is_named(words: tuple[str, ...]) -> None:
    """The message begins with the flag."""
    result = run(tiers.app, *words)

    assert isinstance(result.exception, Invalid)
    assert str(result.exception).startswith(words[0])
