"""Where results come from: what config.json says of the versions, the code and the machines of a study."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from sparse_jax.data.arrays import Arrays
from sparse_jax.errors import UserError
from sparse_jax.sparse.build import kernel
from sparse_jax.study.store import Store
from sparse_jax.training.checkpoint import digest
from sparse_jax.training.hardware import Hardware

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": sys.version.split()[0]} | {name: importlib.metadata.version(name) for name in PACKAGES}


def commit() -> str | None:
    """The commit of the checkout this code runs from, with a + if it has changes; None elsewhere."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance(hardware: Hardware, sparse: bool) -> dict:
    """What config.json says of where the results came from; `sparse`: some layer is executed so."""
    return {
        "versions": versions(),
        "commit": commit(),
        "device": hardware.description,
        "lanes": hardware.lanes,
        "batch_devices": hardware.batch_devices,
        "products": kernel().description if sparse and hardware.devices[0].platform == "cpu" else None,
    }


def origin(arrays: Arrays, hardware: Hardware) -> dict:
    """What search.json says of the data and the code."""
    return {"data": digest(arrays), "versions": versions(), "commit": commit(), "device": hardware.description}


def open_session(store: Store, hardware: Hardware, sparse: bool) -> int:
    """The number of this session in config.json, which says where it runs; a note if the study began elsewhere."""
    here = provenance(hardware, sparse)
    with store.alone():
        config = store.read_config()
        sessions = config["sessions"]
        if sessions and sessions[-1]["lanes"] != hardware.lanes:
            raise UserError(
                f"this study was begun with {sessions[-1]['lanes']} lanes, not {hardware.lanes}: its results would "
                "differ in the last bit; --layout=map has 1 lane, --layout=vmap --lane_width=N has N"
            )
        last = {"batch_devices": 1} | sessions[-1] if sessions else here  # older sessions do not say it
        shared = last["batch_devices"]
        if shared != hardware.batch_devices:
            raise UserError(
                f"this study was begun with --batch_devices={shared}: its results would differ in the last bit"
            )
        if here in sessions:
            return sessions.index(here)
        if sessions:
            changed = ", ".join(name for name in here if here[name] != sessions[-1].get(name))
            print(f"note: this study was begun under other {changed} (config.json has both)", file=sys.stderr)
        store.write_config(config | {"sessions": [*sessions, here]})
        return len(sessions)


def tell_of_kernel(hardware: Hardware) -> None:
    """Say so where the products of connections are slower than they could be."""
    if hardware.devices[0].platform == "cpu" and (reason := kernel().reason):
        print(f"note: sparse products are computed in pure JAX, several times slower: {reason}", file=sys.stderr)
