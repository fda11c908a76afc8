"""Which devices train, and how wide: decided once, before the first computation."""

import os
from pathlib import Path
from typing import NamedTuple

import jax

from sparse_jax.config import AUTO, JAX_FOR_GPU, StudyConfig
from sparse_jax.errors import UserError
from sparse_jax.training.cohort import make_mesh

SMALL = 2**18  # bytes of a network whose instructions take less time than it takes to begin them
VARIANT_COPIES = 4  # of the weights of a variant: itself, masks, gradients, slots
MOST_OF_MEMORY = 0.5  # that data may take, or the runs that train together


class Hardware(NamedTuple):
    """The devices of a study and how the runs of a cohort share them."""

    devices: tuple[jax.Device, ...]
    layout: str  # vmap or map
    lane_width: int  # runs that train together: lanes of a device with vmap, of all devices with map
    batch_devices: int = 1  # that share the batches of a run

    @property
    def description(self) -> str:
        """The devices and the layout in words."""
        of = f" of {self._processes} processes" if self._processes > 1 else ""
        sharing = f", {self.batch_devices} to a batch" if self.batch_devices > 1 else ""
        return f"{len(self.devices)} × {self.devices[0].device_kind}{of}, layout {self.layout}{sharing}"

    @property
    def _columns(self) -> int:
        """How many runs can train at the same time, each on devices of its own."""
        return len(self.devices) // self.batch_devices

    @property
    def _processes(self) -> int:
        return len({device.process_index for device in self.devices})

    def holds(self, size: int) -> bool:
        """Whether data of `size` bytes may lie on every device: copies of CPU devices share the host's memory."""
        copies = len(self.devices) // self._processes if self.devices[0].platform == "cpu" else 1
        return size * copies <= self._room

    @property
    def _room(self) -> float:
        """Bytes that may be used of one kind: data, or the runs of a group."""
        device = jax.local_devices()[0]
        memory = _host_memory() if device.platform == "cpu" else device.memory_stats()["bytes_limit"]
        return MOST_OF_MEMORY * memory

    @property
    def lanes(self) -> int:
        """How many runs share an instruction: the bits of a result depend on it."""
        return self.lane_width if self.layout == "vmap" else 1

    def group_size(self, run_bytes: int) -> int:
        """The most runs of so many bytes that train together. With map a result does not depend on it."""
        if self.layout == "vmap":
            return self.lane_width * self._columns
        return max(1, min(self.lane_width, int(self._room // run_bytes)))

    def fitting(self, lane_bytes: int) -> "Hardware":
        """With lanes that there is memory for, where runs are lanes: halved as often as it takes."""
        lanes = self.lane_width
        while self.layout == "vmap" and lanes > 1 and lanes * lane_bytes > self._room:
            lanes //= 2
        return self._replace(lane_width=lanes)

    def halved(self, group: int) -> "Hardware":
        """For half as many runs at once as the `group` that was too much."""
        most = self.lane_width if self.layout == "vmap" else group
        return self._replace(lane_width=max(1, most // 2))

    def abreast(self, network_bytes: int, most: int) -> int:
        """How many variants of a network, up to `most`, one instruction evaluates: on CPU small ones only."""
        if self.devices[0].platform == "cpu":
            return most if network_bytes <= SMALL else 1
        return max(1, min(most, int(self._room // (VARIANT_COPIES * self.lane_width * network_bytes))))

    def place(self, runs: int) -> tuple[jax.sharding.Mesh, int]:
        """The mesh for a group of `runs` runs and its padded width.

        It has no more devices than there is work for, but where several processes train together all of them.
        """
        lanes = self.lanes
        used = self._columns if self._processes > 1 else min(self._columns, -(-runs // lanes))
        width = used * lanes if self.layout == "vmap" else -(-runs // used) * used
        return make_mesh(self.devices[: used * self.batch_devices], self.batch_devices), width


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _use_cache() -> None:
    """Compiled programs of more than 0.2 s go to the user's cache folder, unless JAX is told another."""
    if jax.config.jax_compilation_cache_dir is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "sparse_jax" / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def configure(study: StudyConfig) -> None:
    """Tell JAX what a study asks for. To be called once, before any computation."""
    jax.config.update("jax_num_cpu_devices", _cores() if study.cpu_devices == AUTO else study.cpu_devices)
    if study.compilation_cache:
        _use_cache()


def found(study: StudyConfig, several: bool) -> Hardware:
    """The devices of this process, or of all `several` that train together, and how runs share them.

    Raises:
      UserError: this version of jax computes wrongly on them, or `batch_devices` does not divide them.
    """
    devices = tuple(jax.devices() if several else jax.local_devices())
    if devices[0].platform == "gpu" and jax.__version_info__ < tuple(map(int, JAX_FOR_GPU.split("."))):
        raise UserError(
            f"jax {jax.__version__} computes wrongly on a GPU (jax-ml/jax#36958): on Python 3.12, pip install -U "
            f"'jax[cuda12]>={JAX_FOR_GPU}', or JAX_PLATFORMS=cpu"
        )
    layout = study.layout
    if layout == AUTO:
        layout = "map" if study.exact_seeds or devices[0].platform == "cpu" else "vmap"
    if len(devices) % study.batch_devices:
        raise UserError(f"--batch_devices={study.batch_devices} does not divide the {len(devices)} devices here")
    return Hardware(devices, layout, study.lane_width, study.batch_devices)


def set_up(study: StudyConfig) -> Hardware:
    """Configure JAX, and say what this process has. To be called once, before any computation."""
    configure(study)
    return found(study, several=False)
