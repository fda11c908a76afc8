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
from sparse_jax.flags import BAD_INPUT, CANNOT_WRITE
from sparse_jax.study.assemble import ASSEMBLE, Assembler
from sparse_jax.study.fleet import ORDERS
from sparse_jax.study.grid import Study
from sparse_jax.study.interrupt import INTERRUPTED
from sparse_jax.study.loader import make_loader
from sparse_jax.study.memory import out_of_memory
from sparse_jax.training.hardware import found
from sparse_jax.training.hosts import END, Hosts

FAILED = 1
ENDS = {UserError: BAD_INPUT, OSError: CANNOT_WRITE}  # an error -> exit status of all processes


def lead(hosts: Hosts, work: Callable[[], int]) -> int:
    """Do the work of the process that leads, and let the others go with its exit status."""
    with _losses_told(hosts):
        try:
            status = work()
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:
            hosts.announce(END, next((status for kind, status in ENDS.items() if isinstance(error, kind)), FAILED))
            raise
        hosts.announce(END, status)
        return status


def follow(study: Study, settings: StudyConfig, hosts: Hosts, read: Callable[[str], Arrays]) -> int:
    """Do what the process that leads announces, until it ends; its exit status."""
    with _losses_told(hosts):
        hardware, fleet = found(settings, hosts.several), None
        assemble = Assembler(study, hosts, make_loader(settings, hardware, read, lambda name, content: None))
        while (order := hosts.order())[0] != END:
            name, *arguments = order
            if name == ASSEMBLE:
                lanes, runs = arguments
                with contextlib.suppress(UserError):  # the process that leads has it, too, and tells of it
                    fleet = assemble(hardware._replace(lane_width=lanes), runs).fleet
            else:
                ORDERS[name](fleet, *arguments)
        return order[1]


@contextlib.contextmanager
def _losses_told(hosts: Hosts) -> Iterator[None]:
    """End at once where what is computed together fails, or what this process computes for the one that leads.

    At the end of a process JAX would wait for the others, and they for this one.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not hosts.several:
            raise
        if out_of_memory(error):
            raise UserError("a device has not enough memory for these runs: a smaller --lane_width may help") from None
        print(
            f"process {hosts.index} stops: what it computed with the others failed, most likely because one of them "
            "has ended, and its own messages say why; the same command continues from the last checkpoint "
            f"({str(error).splitlines()[0]})",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(INTERRUPTED)
    except Exception:
        if hosts.leads:
            raise
        traceback.print_exc()
        os._exit(FAILED)
