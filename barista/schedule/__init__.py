"""Plans of what computes where: made by planners that know only shapes, executed by op sets."""

from __future__ import annotations

from .schedule import Entry, Schedule

__all__ = ["Entry", "Schedule"]
