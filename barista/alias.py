"""Scripts and modules that say ``import caffe``: `as_caffe` lets them have Barista's modules under pycaffe's names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .errors import UnsupportedError

_OURS = __name__.rpartition(".")[0]
_ALIAS = "caffe"
# pycaffe's compiled module, whose classes and functions are here where pycaffe passes them on.
_ELSEWHERE = {"caffe._caffe": f"{_OURS}.pycaffe"}


class _Aliases(MetaPathFinder, Loader):
    """Finds ``caffe.name`` where there is a ``barista.name``, and loads it as that very module."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        if not fullname.startswith(f"{_ALIAS}.") or importlib.util.find_spec(_ours(fullname)) is None:
            return None
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        # A module may put another in its own place: what stands here afterwards is what the import gives.
        sys.modules[module.__name__] = importlib.import_module(_ours(module.__name__))


def _ours(name: str) -> str:
    """The module that a name of pycaffe's stands for."""
    return _ELSEWHERE.get(name, _OURS + name.removeprefix(_ALIAS))


def as_caffe() -> None:
    """Let ``import caffe`` give Barista from now on, in this process: ``caffe.io`` is then ``barista.io``, and so on.

    Scripts and modules of Python layers that were written for pycaffe run so without a change.  A Caffe that is
    installed is left alone, but cannot be imported beside this one.

    Raises
    ------
    UnsupportedError : another ``caffe`` was imported before
    """
    ours = sys.modules[_OURS]
    present = sys.modules.get(_ALIAS)
    if present is ours:
        return
    if present is not None:
        origin = getattr(present, "__file__", None) or "of unknown origin"
        raise UnsupportedError(f"another module 'caffe' ({origin}) is imported already, and two cannot share one name; "
                               "call barista.as_caffe() before `import caffe`, or write `import barista as caffe`")
    sys.modules[_ALIAS] = ours
    # First: the usual finder would look into this package, and load its modules a second time.
    sys.meta_path.insert(0, _Aliases())
