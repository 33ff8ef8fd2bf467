"""Plans of what computes where: made by planners that know only shapes, executed by op sets."""

from __future__ import annotations

from .schedule import CPU, FPGA, OPENCL, Entry, Schedule

__all__ = ["CPU", "FPGA", "OPENCL", "Entry", "Schedule"]
