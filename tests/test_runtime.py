"""The OpenCL runtime: choosing devices, building programs, moving memory, and what it says when it fails."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from opencl_device import open_opencl

from barista.errors import DeviceError, UnsupportedError
from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps
from barista.runtime import build_helpers, devices, pocl, programs
from barista.runtime.context import Context
from barista.runtime.driver import cl
from barista.runtime.errors import code_name, device_error
from barista.runtime.kernel import Kernel
from barista.runtime.programs import Source
from barista.runtime.space import OpenCLSpace

pytestmark = pytest.mark.opencl


@pytest.fixture(scope="module")
def context() -> Context:
    return open_opencl().context


@pytest.fixture(scope="module")
def space(context: Context) -> OpenCLSpace:
    return OpenCLSpace(context)


# ---- choosing -------------------------------------------------------------------------------

def fake(name: str, bit: int, platform: str = "Acme OpenCL", available: bool = True, compiler: bool = True) -> Any:
    return SimpleNamespace(name=name, type=bit, platform=SimpleNamespace(name=platform), max_compute_units=4,
                           global_mem_size=1 << 30, available=available, compiler_available=compiler)


def failure(kind: Any, routine: str, code: int) -> Any:
    """An error as pyopencl raises it."""
    return kind(cl._cl._ErrorRecord(routine, code, ""))


CPU = fake("cpu-Ryzen", cl.device_type.CPU, "Portable Computing Language")
GPU = fake("GeForce", cl.device_type.GPU)
CARD = fake("Alveo", cl.device_type.ACCELERATOR, "Xilinx")
OFFLINE = fake("Alveo", cl.device_type.ACCELERATOR, "Xilinx", compiler=False)
LOST = fake("Radeon", cl.device_type.GPU, available=False)


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have chosen a device."""
    monkeypatch.delenv("PYOPENCL_CTX", raising=False)


@pytest.mark.parametrize(("found", "wanted", "expected"), [
    ([CPU, CARD, GPU], None, GPU),
    ([CPU, CARD], None, CARD),
    ([CPU], None, CPU),
    ([OFFLINE, LOST, CPU], None, CPU),
    ([OFFLINE, CPU], "0", OFFLINE),
    ([CPU, GPU], "0", CPU),
    ([CPU, GPU], "1", GPU),
    ([CPU, GPU, CARD], "alveo", CARD),
    ([GPU, CPU], "portable", CPU),
])
def test_choose(monkeypatch: pytest.MonkeyPatch, found: list[Any], wanted: str | None, expected: Any) -> None:
    monkeypatch.setattr(devices, "all_devices", lambda: found)
    assert devices.choose(wanted) is expected


@pytest.mark.parametrize(("wanted", "problem"), [("7", "OpenCL device 7 does not exist"),
                                                 ("radeon", "has 'radeon' in its name")])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, wanted: str, problem: str) -> None:
    monkeypatch.setattr(devices, "all_devices", lambda: [CPU, GPU])
    with pytest.raises(DeviceError, match=problem) as caught:
        devices.choose(wanted)
    assert "0: cpu-Ryzen (Portable Computing Language), CPU, 4 compute units, 1024 MiB" in str(caught.value)
    assert "1: GeForce (Acme OpenCL), GPU" in str(caught.value)


@pytest.mark.parametrize(("variable", "expected"), [
    ("0", CPU), ("1", GPU), ("acme", GPU), ("Portable:", CPU), ("1:0", GPU), ("1:1", LOST), ("acme:rad", LOST)])
def test_the_variable_of_pyopencl(monkeypatch: pytest.MonkeyPatch, variable: str, expected: Any) -> None:
    found = [CPU, GPU, LOST]
    monkeypatch.setattr(devices, "all_devices", lambda: found)
    monkeypatch.setattr(devices.cl, "get_platforms", lambda: [CPU.platform, GPU.platform])
    monkeypatch.setenv("PYOPENCL_CTX", variable)
    choice = devices.select()
    assert choice.device is expected
    assert choice.reason == f"PYOPENCL_CTX={variable}"
    assert devices.select("0").device is CPU  # what is said in the call goes before it
    other = next(device for device in found if device is not expected)
    assert devices.why_not(other, choice) == "PYOPENCL_CTX asks for another"


@pytest.mark.parametrize(("variable", "problem"), [
    ("2", "no platform '2'"), ("xil", "no platform 'xil'"), ("1:5", "no device '5' on Acme OpenCL"),
    ("0:GeForce", "no device 'GeForce' on Portable Computing Language")])
def test_a_variable_that_names_nothing(monkeypatch: pytest.MonkeyPatch, variable: str, problem: str) -> None:
    monkeypatch.setattr(devices, "all_devices", lambda: [CPU, GPU])
    monkeypatch.setattr(devices.cl, "get_platforms", lambda: [CPU.platform, GPU.platform])
    monkeypatch.setenv("PYOPENCL_CTX", variable)
    with pytest.raises(DeviceError, match=f"PYOPENCL_CTX={variable}: {problem}; give PLATFORM or PLATFORM:DEVICE"):
        devices.choose()


def test_why_a_device_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    second = fake("GeForce two", cl.device_type.GPU)
    found = [CPU, LOST, OFFLINE, GPU, second]
    monkeypatch.setattr(devices, "all_devices", lambda: found)
    choice = devices.select()
    assert choice == devices.Choice(GPU, "the first GPU of 5 devices")
    assert [devices.why_not(device, choice) for device in found if device is not GPU] == [
        "a GPU goes before a CPU", "its driver says that it is not available",
        "its driver has no compiler, it runs finished binaries only", "another GPU stands before it"]
    monkeypatch.setattr(devices, "all_devices", lambda: [CPU])
    assert devices.select().reason == "the only device"


def test_no_device_is_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "all_devices", lambda: [OFFLINE, LOST])
    with pytest.raises(DeviceError, match="no OpenCL device can build kernels: Alveo: its driver has no compiler, it "
                                          "runs finished binaries only; Radeon: its driver says that it is not "
                                          "available; run: pip install"):
        devices.choose()


def test_no_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> list[Any]:
        raise failure(cl.LogicError, "clGetPlatformIDs", -1001)

    monkeypatch.setattr(devices.cl, "get_platforms", none)
    with pytest.raises(DeviceError, match=r"no OpenCL platform was found \(PLATFORM_NOT_FOUND_KHR\); "
                                          r"run: pip install 'barista-caffe\[opencl\]', which brings PoCL"):
        Context()


def test_a_platform_without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> list[Any]:
        raise failure(cl.RuntimeError, "clGetDeviceIDs", -1)

    monkeypatch.setattr(devices.cl, "get_platforms", lambda: [SimpleNamespace(name="Empty", get_devices=none)])
    with pytest.raises(DeviceError, match=r"no OpenCL device was found \(Empty: no device \(DEVICE_NOT_FOUND\)\); "
                                          r"run: pip"):
        devices.all_devices()


def test_pocl_that_cannot_write_its_cache_says_which_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PoCL shows no device then; a file stands where the folder would be."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(devices.cl, "get_platforms", lambda: [
        SimpleNamespace(name="Portable Computing Language", get_devices=list)])
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(DeviceError, match=r"no OpenCL device was found: PoCL cannot write to its cache folder "
                                          r".*file/cache \(Not a directory\).*set POCL_CACHE_DIR to a folder"):
        devices.all_devices()
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(DeviceError, match=r"no OpenCL device was found \(Portable Computing Language: no device\)"):
        devices.all_devices()


def test_where_pocl_keeps_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/me")
    monkeypatch.delenv("POCL_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert pocl.cache_folder() == Path("/me/.cache/pocl/kcache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert pocl.cache_folder() == Path("/cache/pocl/kcache")
    monkeypatch.setenv("POCL_CACHE_DIR", "/own")
    assert pocl.cache_folder() == Path("/own")


@pytest.mark.skipif(sys.platform != "linux", reason="uses /proc, where nobody can write")
def test_the_real_pocl_shows_no_device_without_its_cache() -> None:
    code = "from barista.runtime import devices\ntry:\n    devices.all_devices()\nexcept Exception as e:\n    print(e)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={**os.environ, "POCL_CACHE_DIR": "/proc/none"})
    if not run.stdout:
        pytest.skip("another platform has a device")
    assert "PoCL cannot write to its cache folder /proc/none" in run.stdout


@pytest.mark.parametrize("module", ["None", "type(sys)('pyopencl')"], ids=["none", "what an uninstalled one leaves"])
def test_without_pyopencl_the_extra_is_named(module: str) -> None:
    code = (f"import sys; sys.modules['pyopencl'] = {module}\n"
            "from barista.compose import make_ops\nmake_ops('opencl')")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert ("MissingExtraError: OpenCL, on which the backends opencl and fpga stand, needs the package 'pyopencl', "
            "which is not installed; run: pip install 'barista-caffe[opencl]'") in run.stderr


def test_pocl_threads_are_pinned_before_it_loads() -> None:
    code = ("import os; os.environ.pop('POCL_AFFINITY', None); os.sched_getaffinity = lambda pid: {cores}\n"
            "import barista.runtime.driver\nprint(os.environ.get('POCL_AFFINITY'))")
    for cores, expected in (("set(range(os.cpu_count()))", "1"), ("{99}", "None")):
        run = subprocess.run([sys.executable, "-c", code.format(cores=cores)], capture_output=True, text=True,
                             check=True)
        assert run.stdout.strip() == expected


def test_float64_needs_the_device_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    open_opencl()
    original = Context.__init__

    def without(self: Context, device: str | None = None) -> None:
        original(self, device)
        self.has_fp64 = False

    monkeypatch.setattr(Context, "__init__", without)
    with pytest.raises(UnsupportedError, match=r"has no float64 \(cl_khr_fp64\); use float32, or the cpu backend"):
        OpenCLOps(CpuOps(np.float64))
    assert OpenCLOps(CpuOps(np.float32)).dtype == np.float32


# ---- PoCL on young processors ---------------------------------------------------------------

def structure(*words: int) -> Any:
    return (ctypes.c_uint64 * 512)(*words)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_name_is_found_only_where_it_stands_in_full() -> None:
    name, longer = ctypes.create_string_buffer(b"generic"), ctypes.create_string_buffer(b"generic-rv64")
    garbage = [1, 8, 2**40 + 3, 2**47 - 8, 2**64 - 1, 0]
    address = ctypes.addressof(name)
    found = structure(*garbage, ctypes.addressof(longer), address)
    assert pocl._find_name(ctypes.addressof(found)) == address
    absent = structure(*garbage, ctypes.addressof(longer))
    assert pocl._find_name(ctypes.addressof(absent)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_processor_that_pocl_does_not_know_gets_the_name_of_one_it_contains(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(pocl.platform, "machine", lambda: "x86_64")
    rich = frozenset(("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "rdrand", "abm", "popcnt", "sse2", "clzero"))
    for flags, expected in ((rich, b"haswell"), (frozenset(("sse2", "avx2")), b"x86-64"), (frozenset(), b"generic")):
        monkeypatch.setattr(pocl, "_processor_flags", lambda flags=flags: flags)
        name = ctypes.create_string_buffer(b"generic")
        holder = structure(ctypes.addressof(name))
        device: Any = SimpleNamespace(int_ptr=ctypes.addressof(holder), type=cl.device_type.CPU,
                                 platform=SimpleNamespace(name=pocl.PLATFORM, version="OpenCL 3.0 PoCL 3.0-rc2"))
        with caplog.at_level(logging.DEBUG, "barista.runtime.pocl"):
            pocl.name_processor(device)
        assert name.value == expected
    device.int_ptr = 0
    device.platform.version = "OpenCL 3.0 PoCL 6.0"
    pocl.name_processor(device)  # a version that needs no help: not looked at
    device.platform.name = "Acme OpenCL"
    pocl.name_processor(device)  # not PoCL: not looked at
    assert [record.getMessage().rsplit(" ", 1)[1] for record in caplog.records] == ["haswell", "x86-64"]


# ---- programs and kernels -------------------------------------------------------------------

ADD = """__kernel void add(__global const float *x, __global float *y, const int step, const float v, const uint items)
{ const uint id = get_global_id(0); if (id < items) y[id] = (x ? x[id] : 0) + step + v; }"""


def test_a_program_is_built_once_for_its_text_and_macros(context: Context) -> None:
    build = context.programs.build
    first = build("add.cl", ADD, {"A": 1})
    assert build("add.cl", ADD, {"A": 1}) is first
    assert build("add.cl", ADD, {"A": 2}) is not first
    assert build("add.cl", ADD + "\n", {"A": 1}) is not first


def test_a_failed_build_keeps_the_log(context: Context) -> None:
    with pytest.raises(DeviceError) as caught:
        context.programs.build("bad.cl", "__kernel void f(__global float *y) { y[0] = nowhere; }", {"SIZE": 3})
    text = str(caught.value)
    assert text.startswith(f"bad.cl does not build on {context.name} with the options -DSIZE=3; the compiler says:\n")
    assert "undeclared identifier 'nowhere'" in text


def kernels(context: Context, *names: str) -> list[Kernel]:
    """Kernels of programs that no other test has built."""
    return [Kernel(context, Source.of(f"{name}.cl", ADD, {"OF": name}), "add", "bbir", np.dtype(np.float32))
            for name in names]


def test_declared_kernels_are_built_together(context: Context, space: OpenCLSpace) -> None:
    one, two, gone = kernels(context, "one", "two", "gone")
    del gone
    assert not one.is_built and not two.is_built
    before = len(context.programs._built)
    assert context.programs.complete() == []
    assert one.is_built and two.is_built
    assert len(context.programs._built) == before + 2
    assert context.programs.complete() == []
    x, result = space.allocate(3, np.dtype(np.float32)), np.empty(3, np.float32)
    space.zero(x)
    one.run(3, x, x, 2, 0.5)
    space.download(x, result)
    np.testing.assert_array_equal(result, 2.5)


def test_what_does_not_build_is_told_and_stops_nothing_else(context: Context) -> None:
    bad = Kernel(context, Source.of("bad.cl", "__kernel void add(__global float *y) { nowhere; }"), "add", "bbir",
                 np.dtype(np.float32))
    [good] = kernels(context, "good")
    [error] = context.programs.complete()
    assert error.startswith(f"bad.cl does not build on {context.name}")
    assert good.is_built and not bad.is_built
    array = OpenCLSpace(context).allocate(1, np.dtype(np.float32))
    with pytest.raises(DeviceError, match=r"^bad\.cl does not build on"):
        bad.run(1, array, array, 1, 1.0)
    with context.programs.trial():
        tried = Kernel(context, Source.of("tried.cl", "__kernel void add() { nowhere; }"), "add", "", np.dtype("f4"))
    assert context.programs.complete() == [] and not tried.is_built
    absent = Kernel(context, Source.of("add.cl", ADD), "subtract", "bbir", np.dtype(np.float32))
    [error] = context.programs.complete()
    assert error.startswith("kernel subtract of add.cl: ") and "INVALID_KERNEL_NAME" in error
    assert not absent.is_built


@pytest.fixture
def always_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of three cores on which every program is worth a helper's while."""
    monkeypatch.setattr(programs, "BUILT_S", 0.0)
    monkeypatch.setattr(programs, "LEAST_SHARED", 1)
    monkeypatch.setattr(build_helpers, "_cores", lambda: 3)


@pytest.mark.usefixtures("always_shared")
def test_helpers_build_for_this_process(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before there is work, and not longer than the block."""
    answered = []
    feed = build_helpers._feed

    def noting(process: Any, todo: Any, job: Any) -> None:
        feed(process, todo, lambda one: answered.append(one.name) or job(one))

    monkeypatch.setattr(build_helpers, "_feed", noting)
    some = kernels(context, *(f"shared_{index}_{os.getpid()}" for index in range(6)))
    with context.programs.helped():
        helpers = context.programs._helpers
        assert helpers is not None and not helpers._running
        with context.programs.helped():  # within another's
            assert context.programs._helpers is helpers
        assert context.programs.complete() == []
        processes = list(helpers._running)
        assert len(processes) == 2 and all(process.poll() is None for process in processes)
    assert all(kernel.is_built for kernel in some)
    assert answered and len(answered) == len(set(answered))
    assert context.programs._helpers is None and all(process.poll() is not None for process in processes)
    assert not [thread for thread in threading.enumerate() if "noting" in thread.name]


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize("executable", [sys.executable + "-that-is-not-there", "/bin/false"])
def test_without_helpers_everything_is_built_here(context: Context, monkeypatch: pytest.MonkeyPatch,
                                                  executable: str) -> None:
    monkeypatch.setattr(build_helpers.sys, "executable", executable)
    name = "absent" if executable.endswith("there") else "false"
    some = kernels(context, *(f"{name}_{index}" for index in range(4)))
    with context.programs.helped():
        assert context.programs.complete() == []
    assert all(kernel.is_built for kernel in some)


@pytest.mark.usefixtures("always_shared")
def test_ctrl_c_ends_the_helpers(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    some = kernels(context, *(f"interrupted_{index}" for index in range(4)))
    original, processes = Kernel.build, []

    def build(kernel: Kernel) -> None:
        helpers = context.programs._helpers
        if helpers is not None and helpers._running:
            processes.extend(helpers._running)
            raise KeyboardInterrupt
        original(kernel)

    monkeypatch.setattr(Kernel, "build", build)
    with pytest.raises(KeyboardInterrupt), context.programs.helped():
        context.programs.complete()
    assert processes and all(process.poll() is not None for process in processes)
    del some


def test_arguments_may_change_from_run_to_run(context: Context, space: OpenCLSpace) -> None:
    kernel = Kernel(context, Source.of("add.cl", ADD), "add", "bbir", np.dtype(np.float32))
    dtype = np.dtype(np.float32)
    x, y, z = (space.allocate(300, dtype) for _ in range(3))
    space.upload(np.arange(300, dtype=dtype), x)
    result = np.full(300, -1, dtype)
    space.upload(result, y)
    kernel.run(0, x, y, 1, 0.5)
    kernel.run(200, x, y, 1, 0.5)
    kernel.run(300, None, z, 2, 0.5)
    kernel.run(100, x, y, 3, 0.25)
    space.download(y, result)
    expected = np.concatenate([np.arange(100) + 3.25, np.arange(100, 200) + 1.5, np.full(100, -1)])
    np.testing.assert_array_equal(result, expected)
    space.download(z, result)
    np.testing.assert_array_equal(result, np.full(300, 2.5))


def test_errors_have_names() -> None:
    assert code_name(-52) == "INVALID_KERNEL_ARGS"
    error = device_error(failure(cl.MemoryError, "clEnqueueNDRangeKernel", -4), "kernel add over 8 work-items")
    assert str(error) == ("kernel add over 8 work-items: clEnqueueNDRangeKernel failed with "
                          "MEM_OBJECT_ALLOCATION_FAILURE (-4); the device is out of memory: lower the batch size")
    other = device_error(failure(cl.RuntimeError, "clFinish", -12345), "waiting")
    assert str(other) == "waiting: clFinish failed with unknown code -12345 (-12345)"


def test_a_kernel_that_cannot_be_enqueued_says_which(context: Context, space: OpenCLSpace) -> None:
    kernel = Kernel(context, Source.of("add.cl", ADD), "add", "bbir", np.dtype(np.float32))
    kernel._group = (context.device.max_work_group_size * 4,)
    x = space.allocate(1, np.dtype(np.float32))
    with pytest.raises(DeviceError, match="kernel add over 1 work-items: clEnqueueNDRangeKernel failed with INVALID_"):
        kernel.run(1, x, x, 1, 1.0)


# ---- memory ---------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["f", "u1", "i4"])
@pytest.mark.parametrize("count", [0, 1, 1001])
def test_what_is_uploaded_comes_back(space: OpenCLSpace, dtype: str, count: int) -> None:
    values = np.arange(count).astype(dtype)
    array = space.allocate(count, np.dtype(dtype))
    host = values.copy()
    space.upload(host, array)
    host[:] = 0  # the host may be reused at once
    back = np.zeros(count, dtype)
    space.download(space.view(array, (count, 1)), back)
    np.testing.assert_array_equal(back, values)


def test_a_view_is_the_same_memory(space: OpenCLSpace) -> None:
    array = space.allocate(12, np.dtype(np.float32))
    view = space.view(array, (2, 5))
    assert view.buffer is array.buffer
    assert view.shape == (2, 5)
    assert repr(view) == "DeviceArray(shape=(2, 5), dtype=float32)"
    with pytest.raises(ValueError, match=r"shape \(13,\) does not fit into an array of \(12,\)"):
        space.view(array, (13,))


def test_an_array_beyond_the_device(space: OpenCLSpace, context: Context) -> None:
    with pytest.raises(DeviceError, match=f"OpenCL device {context.name}: an array of {2**60} float32 .* exceeds the "
                                          "limit of .* for one array; lower the batch size"):
        space.allocate(2**60, np.dtype(np.float32))


# ---- measuring ------------------------------------------------------------------------------

def test_a_measuring_queue_tells_what_it_did() -> None:
    context = open_opencl().context
    space = OpenCLSpace(context)
    kernel = Kernel(context, Source.of("add.cl", ADD), "add", "bbir", np.dtype(np.float32))
    array = space.allocate(1 << 16, np.dtype(np.float32))
    back = np.empty(1 << 16, np.float32)

    def work() -> None:
        space.upload(np.ones(1 << 16, np.float32), array)
        kernel.run(1 << 16, array, array, 1, 1.0)
        space.download(array, back)

    work()
    assert context.take_seconds() == {}  # a plain queue carries no times
    context.measure()
    work()
    taken = context.take_seconds()
    assert set(taken) == {"write", "kernel", "read"}
    assert min(taken.values()) > 0
    assert context.take_seconds() == {}  # each command counts once
    np.testing.assert_array_equal(back, 3)
