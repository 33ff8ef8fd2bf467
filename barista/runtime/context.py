"""One device with its in-order queue and its compiled programs."""

from __future__ import annotations

from . import devices, pocl
from .driver import cl
from .errors import device_error
from .programs import Programs
from .queues import seconds


class Context:
    """A device that is ready to be used.

    Everything goes into one in-order queue: commands run in the order in which they were
    given, and the host waits only where it reads something back.

    Parameters
    ----------
    device : which one, see `devices.choose`

    Attributes
    ----------
    device, handle, queue : the OpenCL objects
    reason : why this device
    programs : what has been compiled for the device
    is_cpu : whether work-items run one after the other on a few cores
    has_fp64 : whether kernels may use double
    shares_host : whether the device works in the host's memory, on arrays as the host laid them out
    processor_flags : what the processor has, by Linux's names, where the device is one under PoCL; else empty

    Raises
    ------
    DeviceError : no platform, no such device, or the driver refuses
    """

    def __init__(self, device: str | None = None) -> None:
        choice = devices.select(device)
        self.device, self.reason = choice.device, choice.reason
        pocl.name_processor(self.device)
        try:
            self.handle = cl.Context([self.device])
            self.queue = cl.CommandQueue(self.handle)
        except cl.Error as error:
            raise device_error(error, f"opening {devices.describe(self.device)}") from error
        self.name: str = self.device.name.strip()
        self.is_cpu = bool(self.device.type & cl.device_type.CPU)
        self.has_fp64 = bool(self.device.double_fp_config)
        # PoCL uses a host pointer as it is, so that mapping a buffer means no more than waiting.
        self.shares_host = pocl.is_pocl(self.device)
        self.processor_flags = pocl.processor_flags(self.device)
        self.programs = Programs(self.handle, self.device, self.finish)
        self._events: dict[str, list[cl.Event]] | None = None

    def describe(self) -> str:
        """One line for the log."""
        return devices.describe(self.device)

    def measuring_queue(self) -> cl.CommandQueue:
        """Return another in-order queue, whose events carry times.

        Raises
        ------
        DeviceError : the driver refuses
        """
        try:
            return cl.CommandQueue(self.handle, properties=cl.command_queue_properties.PROFILING_ENABLE)
        except cl.Error as error:
            raise device_error(error, f"{self.name}: opening a queue that measures") from error

    @property
    def measures(self) -> bool:
        """Whether the queue measures."""
        return self._events is not None

    def measure(self) -> None:
        """Put a queue that measures in the place of the queue, for `take_seconds`; what was enqueued is waited for."""
        if self._events is None:
            self.finish()
            self.queue = self.measuring_queue()
            self._events = {}

    def note(self, stage: str, event: cl.Event) -> None:
        """Count a command under a stage, where the queue measures: ``write``, ``kernel`` or ``read``."""
        if self._events is not None:
            self._events.setdefault(stage, []).append(event)

    def take_seconds(self) -> dict[str, float]:
        """Seconds of the commands since the last call, by stage; waits for them.  Empty where nothing is measured.

        Raises
        ------
        DeviceError : a command failed
        """
        if not self._events:
            return {}
        self.finish()
        taken, self._events = self._events, {}
        return {stage: seconds(events) for stage, events in taken.items()}

    def finish(self) -> None:
        """Wait until everything in the queue is done."""
        try:
            self.queue.finish()
        except cl.Error as error:
            raise device_error(error, f"{self.name}: waiting for the queue") from error
