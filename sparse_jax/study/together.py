"""The processes that train a study together: the one that leads has all of it, the others compute with it."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator

import jax

from sparse_jax.config import StudyConfig
from sparse_jax.data.catalog import Arrays
from sparse_jax.errors import UserError
from sparse_jax.flags import BAD_INPUT, CANNOT_WRITE, FAILED
from sparse_jax.study.assemble import ASSEMBLE, Assembler
from sparse_jax.study.fleet import ORDERS
from sparse_jax.study.grid import Study
from sparse_jax.study.loader import make_loader
from sparse_jax.study.memory import out_of_memory
from sparse_jax.training.hardware import found
from sparse_jax.training.hosts import END, Hosts

FULL = (
    "a device has not enough memory for these runs: a smaller --lane_width, in another --workdir, or more "
    "--batch_devices may help"
)
LOST = (
    "what it computed with the others failed, most likely because one of them has ended, and its own messages say why; "
    "the same command continues from the last checkpoint"
)


def lead(hosts: Hosts, work: Callable[[], int]) -> int:
    """Do the work of the process that leads, and let the others go with its exit status."""
    with _failures_end_at_once(hosts):
        try:
            status = work()
        except (UserError, OSError) as error:
            hosts.dismiss(BAD_INPUT if isinstance(error, UserError) else CANNOT_WRITE)
            raise
        hosts.dismiss(status)
        return status


def follow(study: Study, settings: StudyConfig, hosts: Hosts, read: Callable[[str], Arrays]) -> int:
    """Do what the process that leads announces, until it ends; its exit status."""
    with _failures_end_at_once(hosts):
        told = contextlib.suppress(UserError)  # by the process that leads, which has it, too
        with told:
            hardware = found(settings, hosts.several)
            assemble = Assembler(study, hosts, make_loader(settings, hardware, read, lambda name, content: None))
        fleet = None
        while (order := hosts.order())[0] != END:
            name, *arguments = order
            if name == ASSEMBLE:
                fleet, (lanes, runs) = None, arguments  # the memory of the last one is free for the next
                with told:
                    fleet = assemble(hardware._replace(lane_width=lanes), runs).fleet
            else:
                ORDERS[name](fleet, *arguments)
        hosts.part()
        return order[1]


@contextlib.contextmanager
def _failures_end_at_once(hosts: Hosts) -> Iterator[None]:
    """End the process where it fails in the midst of what several do together.

    At a quiet end JAX would wait for the others, and they for this one.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if not hosts.several:
            raise
        status, lines = FAILED, str(error).splitlines() or [type(error).__name__]
        if out_of_memory(error):
            status = BAD_INPUT
            print(f"process {hosts.index} stops: {FULL}", file=sys.stderr)
        elif isinstance(error, jax.errors.JaxRuntimeError):
            print(f"process {hosts.index} stops: {LOST} ({lines[0]})", file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
