"""Find the folders that ship beside the package, networks, OpenCL kernels and HLS code, and the user's cache.

In a checkout and an editable install they stand next to ``barista/``; a wheel carries them inside it
(``[options] package_dir`` in setup.cfg). Nobody else needs to know which of the two it is.
"""

from __future__ import annotations

import os
from pathlib import Path

from .errors import DataError, nearest

FOLDERS = ("prototxt", "opencl_kernels", "hls")
"""The folders that ship; each has its line in setup.cfg."""

_PACKAGE = Path(__file__).resolve().parent


def find(folder: str, *parts: str) -> Path:
    """Return the path of a shipped folder, or of a file or folder in it.

    Parameters
    ----------
    folder : one of `FOLDERS`
    *parts : the way down from there, for example ``"lenet", "solver.prototxt"``

    Returns
    -------
    Path
        Absolute, and it exists.

    Raises
    ------
    DataError
        The folder is not one that ships, or nothing of that name is in it.
    """
    if folder not in FOLDERS:
        raise DataError(f"no folder {folder!r} ships with Barista, only {', '.join(FOLDERS)}; "
                        f"{nearest(folder, FOLDERS) or 'ask for one of these'}")
    path = _root(folder)
    for part in parts:
        below = path / part
        if not below.exists():
            known = sorted(entry.name for entry in path.iterdir())
            hint = nearest(part, known) or f"it holds {', '.join(known)}"
            raise DataError(f"{path} holds no {part!r}; {hint}")
        path = below
    return path


def cache_folder(name: str) -> Path:
    """What Barista keeps under `name` for later runs, in the user's cache folder (XDG); it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "barista" / name


def _root(folder: str) -> Path:
    inside, beside = _PACKAGE / folder, _PACKAGE.parent / folder
    if inside.is_dir():
        return inside
    # Beside an installed package a folder of this name is a stranger's; only a checkout has a setup.cfg.
    if beside.is_dir() and (_PACKAGE.parent / "setup.cfg").is_file():
        return beside
    raise DataError(f"the folder {folder!r} that ships with Barista is neither in {_PACKAGE} nor beside it; "
                    "the installation is incomplete: reinstall barista-caffe")
