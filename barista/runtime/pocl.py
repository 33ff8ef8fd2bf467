"""Help for PoCL, the OpenCL platform that runs on the host's own cores.

PoCL 3.0, the one on PyPI, asks its LLVM 14 for the processor's name and hands it to its
compiler.  For processors younger than that LLVM (AMD Zen 5, for one) the name is
``generic``, which the compiler refuses: nothing builds.  No option of PoCL changes the
name, so `name_processor` writes one that the compiler knows over it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import struct
from pathlib import Path

from .driver import cl

log = logging.getLogger(__name__)

PLATFORM = "Portable Computing Language"
# The one version that is known to need help, and whose memory is known.
_VERSION = "PoCL 3.0"

# The name stands in a string of its own that a field of PoCL's device structure points to; the
# structure is a few KiB and the field lies in its first part (offset 640 in PoCL 3.0).
_UNKNOWN = b"generic\0"
_SEARCHED_BYTES = 2048

# Names not longer than `_UNKNOWN`, the richest first, with the processor flags that each takes for granted.
_NAMES = (
    ("haswell", frozenset(["avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "rdrand", "abm", "popcnt"])),
    ("x86-64", frozenset(("sse2",))),
)


def cache_folder() -> Path:
    """Where PoCL keeps the kernels that it has built: POCL_CACHE_DIR, else the user's cache folder (XDG)."""
    own = os.environ.get("POCL_CACHE_DIR")
    if own:
        return Path(own)
    home = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/tmp") / ".cache"
    return Path(home) / "pocl" / "kcache"


def cache_problem() -> str:
    """Why PoCL, which without its cache folder shows no device, cannot use it, and what to do; or ''."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    return reason and (f"PoCL cannot write to its cache folder {folder} ({reason}), and shows no device without one: "
                       "set POCL_CACHE_DIR to a folder that can be written")


def is_pocl(device: cl.Device) -> bool:
    """Whether `device` is a processor under PoCL."""
    return bool(device.platform.name == PLATFORM and device.type & cl.device_type.CPU)


def name_processor(device: cl.Device) -> None:
    """Give a PoCL device whose processor LLVM does not know the name of one that it contains.

    Does nothing for other devices and versions, on other systems, and where LLVM knows the processor.
    Where it does not, PoCL can build no kernel at all, so that nothing that worked can break.
    """
    if not is_pocl(device) or _VERSION not in device.platform.version:
        return
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return
    address = _find_name(device.int_ptr)
    if address is None:
        return
    flags = _processor_flags()
    name = next((name for name, needed in _NAMES if needed <= flags), None)
    if name is None:
        return
    ctypes.memmove(address, name.encode().ljust(len(_UNKNOWN), b"\0"), len(_UNKNOWN))
    log.debug("PoCL's compiler does not know this processor; kernels are built for %s", name)


def processor_flags(device: cl.Device) -> frozenset[str]:
    """What the processor under a PoCL device has, by Linux's names such as ``avx512f``; empty for other devices."""
    if not is_pocl(device) or platform.system() != "Linux" or platform.machine() != "x86_64":
        return frozenset()
    return _processor_flags()


def _find_name(structure: int) -> int | None:
    """Address of the string ``generic`` that the structure points to, or None.

    Read through /proc, where a word that is no pointer gives an error instead of a fault.
    """
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        words = os.pread(memory.fileno(), _SEARCHED_BYTES, structure)
        for (word,) in struct.iter_unpack("<Q", words):
            if 0 < word < 1 << 47:
                try:
                    text = os.pread(memory.fileno(), len(_UNKNOWN), word)
                except OSError:
                    continue
                if text == _UNKNOWN:
                    return int(word)
    return None


def _processor_flags() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
