"""Hosts: figures with their sources, and what is said of those that are wrong."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from barista.errors import UnsupportedError
from barista.hardware.host import Host, host_names, load_host, read_host

FIGURES = [field.name for field in dataclasses.fields(Host) if field.type in ("float", "float | None")]
SHIPPED = Path(load_host.__code__.co_filename).parent / "hosts"
DOCUMENT = (Path(__file__).parents[1] / "docs" / "boards.md").read_text(encoding="utf-8")


def test_these_hosts_ship() -> None:
    assert host_names() == ["gtx_1080ti", "xeon_e5_2686v4"]


@pytest.mark.parametrize("name", host_names())
def test_every_figure_has_its_source(name: str) -> None:
    host = load_host(name)
    assert host.name == name
    assert sorted(host.sources) == sorted(figure for figure in FIGURES if getattr(host, figure) is not None)
    for figure, source in host.sources.items():
        value = getattr(host, figure)
        assert f"| `{figure}` | {value:,} | {source} |" in DOCUMENT
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(host.sources)


@pytest.mark.parametrize(("name", "power_w", "gops_per_w"), [("xeon_e5_2686v4", 145, 0.18), ("gtx_1080ti", 279, 1.54)])
def test_performance_per_watt_is_that_of_the_thesis(name: str, power_w: float, gops_per_w: float) -> None:
    host = load_host(name)
    assert host.power_w == power_w
    assert host.flops_per_joule == pytest.approx(gops_per_w * 1e9, rel=1e-12)


def test_a_host_of_ones_own(tmp_path: Path) -> None:
    text = (SHIPPED / "gtx_1080ti.toml").read_text(encoding="utf-8").replace('"gtx_1080ti"', '"mine"', 1)
    path = tmp_path / "mine.toml"
    path.write_text(text + '\n[tiling_bytes_per_s]\nvalue = 2e9\nsource = "measured"\n', encoding="utf-8")
    host = load_host(path)
    assert (host.name, host.path, host.tiling_bytes_per_s) == ("mine", path, 2e9)


def test_an_unknown_host() -> None:
    with pytest.raises(UnsupportedError, match=r"host 'gtx_1080' is not known; did you mean 'gtx_1080ti'\? known: "):
        load_host("gtx_1080")


def test_a_figure_that_a_host_lacks() -> None:
    with pytest.raises(UnsupportedError, match=r"host 'xeon_e5_2686v4' has no tiling_bytes_per_s, which the selector "
                                               r"needs; copy .*v4\.toml, add a table \[tiling_bytes_per_s\] with a"):
        load_host("xeon_e5_2686v4").need("tiling_bytes_per_s", "the selector")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("[power_w]", "[powr_w]", r"host\.toml: a host has no 'powr_w'; did you mean 'power_w'\?"),
    ("value = 279", "value = -279", r"power_w is -279; give a number above 0"),
    ('name = "gtx_1080ti"', "name = 3", r"name is missing or is no text"),
    ("[gemm_flops_per_s]", "[memory_bytes_per_s]",
     r"gemm_flops_per_s is missing; add a table \[gemm_flops_per_s\] of a value and its source"),
])
def test_a_host_that_cannot_be_read(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (SHIPPED / "gtx_1080ti.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "host.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UnsupportedError, match=message):
        read_host(path)
