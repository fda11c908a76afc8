"""Locks between processes that share a folder: held until released or until the process ends, however it ends.

They are those of the file system (flock), so a killed worker holds nothing, on a network file system neither. A
program started meanwhile does not inherit them; a bare fork would.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[str | None]:
    """Hold the lock of a file if nobody has it: None, or who has it, such as "process 12 on host"."""
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield os.pread(file, 1000, 0).decode(errors="replace").strip() or "another process"
            return
        _sign(file)
        yield None


@contextlib.contextmanager
def awaited(path: Path) -> Iterator[None]:
    """Hold the lock of a file, once whoever has it releases it: for what takes moments."""
    with _opened(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file)
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def _sign(file: int) -> None:
    """Say in the file who holds its lock."""
    os.ftruncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
