"""The C++ compiler of this machine, if there is one. Imports no jax."""

import os
import shlex
import shutil

COMPILERS = ("c++", "g++", "clang++")


def find_compiler() -> list[str] | None:
    """The command of the first compiler there is, $CXX before the others: its path, then what $CXX gives it."""
    for candidate in (os.environ.get("CXX", ""), *COMPILERS):
        command = shlex.split(candidate)
        path = shutil.which(command[0]) if command else None
        if path:
            return [path, *command[1:]]
    return None
