"""What a training takes of the machine, under the names that MLflow shows as system metrics."""

import resource
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch

from fer_search.journal import SYSTEM

PROCESS = Path("/proc/self")
FORGET_PEAK = "5"  # proc(5): what clear_refs takes to let the peak begin anew


def begin_training() -> None:
    """Let the peak of memory be this training's, in a process that has had others; only Linux can."""
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text(FORGET_PEAK)


class Usage:
    """Watches an epoch on `device` from now on, and waits for no device.

    `cpu_utilization_percentage` is this process's, 100 for one busy core; `system_memory_usage_megabytes` the most that
    the process has had in memory since its training began (where it is not Linux: since it began itself);
    `gpu_0_memory_usage_megabytes` the most that its tensors took during the epoch; `gpu_0_utilization_percentage`,
    where nvidia-ml-py is installed, the whole GPU's around the sample.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        self._utilization: dict[str, float] = {}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def sample(self) -> None:
        """Ask how busy the GPU is; to be called where it has just trained."""
        if self.device.type != "cuda" or find_spec("pynvml") is None:
            return
        try:
            self._utilization = {"gpu_0_utilization_percentage": float(torch.cuda.utilization(self.device))}
        except Exception:  # NVML's own, as for a slice of a GPU: no training fails for want of a figure
            self._utilization = {}

    def metrics(self) -> dict[str, float]:
        """Return what was found, by MLflow's names."""
        seconds = time.perf_counter() - self._wall
        found = {
            "cpu_utilization_percentage": 100 * (time.process_time() - self._cpu) / seconds,
            "system_memory_usage_megabytes": _peak_bytes() / 1e6,
            **self._utilization,
        }
        if self.device.type == "cuda":
            found["gpu_0_memory_usage_megabytes"] = torch.cuda.max_memory_allocated(self.device) / 1e6
        return {f"{SYSTEM}{name}": value for name, value in found.items()}


def _peak_bytes() -> int:
    with suppress(OSError):
        for line in (PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
