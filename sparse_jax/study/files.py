"""Files that hold the old or the new content after a kill at any instant: whole ones, and lines of JSON.

Whole files are replaced atomically; lines are appended by one write each, and readers skip one that a kill cut short.
JSON is strict: non-finite floats become null, arrays become lists.
"""

import json
import math
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace the file by `content`: after a kill or a power cut it holds the old or the new one. Text is UTF-8."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def dump_json(value: dict, indent: int | None = None) -> str:
    """A JSON object with a line's end, strict: see above."""
    return json.dumps(_strict(value), indent=indent, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    """`value` in what strict JSON can hold."""
    if hasattr(value, "tolist"):  # NumPy and jax, scalars included, without importing either
        return _strict(value.tolist())
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_object(path: Path) -> dict | None:
    """The JSON object of a file, None if it is gone, be it just now, or holds anything else."""
    try:
        return parse_object(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def append_lines(path: Path, rows: Iterable[dict]) -> None:
    """Append JSON objects to a file, a line each, by one write. Raises OSError where there is no room for them."""
    content = "".join(map(dump_json, rows)).encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        written = os.write(file, content)
    finally:
        os.close(file)
    if written != len(content):
        raise OSError(f"no space left for {path}")


def read_lines(path: Path) -> list[dict]:
    """The JSON objects that the lines of a file hold, in the order written; none if it is gone.

    A line that holds anything else, such as the last one that a kill cut short, is passed over.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [row for row in map(parse_object, lines) if row is not None]


def parse_object(text: bytes) -> dict | None:
    """The JSON object, None if `text` is anything else; NaN and Infinity read as None."""
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
