"""Hosts: what the machine around a card does itself, a TOML file each with a source for each figure."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from .figures import Form, needed

_FORM = Form(
    kind="host", folder=Path(__file__).parent / "hosts",
    texts=("name", "description"),
    required=("power_w", "gemm_flops_per_s"),
    optional=("memory_bytes_per_s", "tiling_bytes_per_s", "untiling_bytes_per_s", "im2col_bytes_per_s",
              "launch_s"),
    whole=frozenset())


@dataclasses.dataclass(frozen=True)
class Host:
    """A processor that computes convolutions in a card's place, and tiles for the card.  None is not known.

    Parameters
    ----------
    name : as the command line says it
    description : one line
    power_w : while it computes
    gemm_flops_per_s : operations in a second of a convolution's products, two for each multiply and add; what a
        framework reaches, not the peak
    sources : figure to where it comes from
    path : the file that says all this
    memory_bytes_per_s : rate of its main memory
    tiling_bytes_per_s, untiling_bytes_per_s : rates at which it cuts matrices into tiles and joins them again
    im2col_bytes_per_s : rate at which it writes a matrix of columns
    launch_s : time before a product begins
    """

    name: str
    description: str
    power_w: float
    gemm_flops_per_s: float
    sources: Mapping[str, str]
    path: Path
    memory_bytes_per_s: float | None = None
    tiling_bytes_per_s: float | None = None
    untiling_bytes_per_s: float | None = None
    im2col_bytes_per_s: float | None = None
    launch_s: float | None = None

    @property
    def flops_per_joule(self) -> float:
        """Performance per watt: operations for each joule, 1e9 times the thesis's GOPS/W."""
        return self.gemm_flops_per_s / self.power_w

    def need(self, figure: str, who: str) -> float:
        """Return a figure that somebody cannot do without.

        Parameters
        ----------
        figure : name of a field
        who : what needs it, as a message should say it

        Raises
        ------
        UnsupportedError : the host does not have it; the message says who needs it and what to add where
        """
        return needed("host", self.name, self.path, figure, getattr(self, figure), who)


def host_names() -> list[str]:
    """The hosts that ship, sorted."""
    return _FORM.names()


def load_host(name: str | os.PathLike[str]) -> Host:
    """Return the host of this name: one that ships, or the path of a ``.toml`` file.

    Raises
    ------
    UnsupportedError : no such host, the message lists those there are; or its file is wrong
    """
    return read_host(_FORM.find(name))


def read_host(path: Path) -> Host:
    """Return the host that a file describes.

    Raises
    ------
    UnsupportedError : no TOML, a figure is missing, not positive or without its source, or an unknown name
    """
    return Host(**_FORM.read(path), path=path)
