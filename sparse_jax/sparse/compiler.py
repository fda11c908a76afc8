"""The C++ compiler of this machine, if there is one. Imports no jax."""

import os
import shlex
import shutil

COMPILERS = ("c++", "g++", "clang++")
SWITCH, OFF = "SPARSE_JAX_KERNEL", "off"  # an environment variable, and its value for pure JAX


def switched_off() -> bool:
    """Whether the user wants no kernel."""
    return os.environ.get(SWITCH, "").lower() == OFF


def find_compiler() -> list[str] | None:
    """The command of the first compiler there is, $CXX before the others: its path, then what $CXX gives it."""
    for candidate in (os.environ.get("CXX", ""), *COMPILERS):
        try:
            command = shlex.split(candidate)
        except ValueError:  # a quotation without an end
            continue
        path = shutil.which(command[0]) if command else None
        if path:
            return [path, *command[1:]]
    return None
