"""Which devices train, and how wide: decided once, before the first computation."""

import os
from pathlib import Path
from typing import NamedTuple

import jax

from sparse_jax.config import AUTO, StudyConfig
from sparse_jax.training.cohort import make_mesh

LANES = {"vmap": 32, "map": 8}


class Hardware(NamedTuple):
    """The layout of the cohorts of a study."""

    mesh: jax.sharding.Mesh
    layout: str  # vmap or map
    lane_width: int  # runs at once on a device

    @property
    def devices(self) -> int:
        """How many devices share the runs."""
        return self.mesh.size

    @property
    def description(self) -> str:
        """The devices and the layout in words."""
        device = self.mesh.devices.flat[0]
        return f"{self.devices} × {device.device_kind}, layout {self.layout}"

    def width(self, runs: int) -> int:
        """Lanes of the groups that `runs` runs are cut into, a multiple of the devices.

        With vmap it is fixed, because the bits of a result depend on the lane width. With map they do not, and
        the groups are made as equal as can be.
        """
        widest = self.lane_width * self.devices
        if self.layout == "vmap":
            return widest
        groups = -(-runs // widest)
        return -(-runs // (groups * self.devices)) * self.devices


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _use_cache() -> None:
    """Compiled programs of more than 0.2 s go to the user's cache folder, unless JAX is told another."""
    if jax.config.jax_compilation_cache_dir is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "sparse_jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def set_up(study: StudyConfig) -> Hardware:
    """Configure JAX for a study. To be called once, before any computation."""
    jax.config.update("jax_num_cpu_devices", _cores() if study.cpu_devices == AUTO else study.cpu_devices)
    if study.compilation_cache:
        _use_cache()
    devices = jax.local_devices()
    layout = study.layout
    if layout == AUTO:
        layout = "map" if study.exact_seeds or devices[0].platform == "cpu" else "vmap"
    return Hardware(make_mesh(devices), layout, LANES[layout] if study.lane_width == AUTO else study.lane_width)
