"""What the events of a measuring queue say."""

from __future__ import annotations

from collections.abc import Iterable

from .driver import cl
from .errors import device_error


def seconds(events: Iterable[cl.Event]) -> float:
    """What the device spent on commands that are done, together, from each one's start to its end.

    Raises
    ------
    DeviceError : a command failed, or its queue does not measure
    """
    try:
        return sum(event.profile.end - event.profile.start for event in events) * 1e-9
    except cl.Error as error:
        raise device_error(error, "reading the times of finished commands") from error
