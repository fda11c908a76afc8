"""The commands, the settings and the versions to repeat a study or a search with."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparse_jax.report.records import Source, asked, sessions

WIDTH = 100  # characters, from which a command goes on in another line
ORIGIN = ("versions", "commit", "device", "data")  # what search.json says of where a search began


def again(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What the page shows of every workdir."""
    return [_one(source) for source in sources]


def _one(source: Source) -> dict[str, Any]:
    entries = asked(source)
    return {
        "root": str(source.store.root),
        "file": "config.json",
        "commands": "\n".join(str(entry.get("command")) for entry in entries),
        "sessions": _sessions(sessions(source), "The sessions that trained it."),
        "settings": _json([entry.get("settings") for entry in entries]),
    }


def again_search(root: Path, file: str, begun: Mapping[str, Any], more: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same of a search.

    Args:
      root: its workdir.
      file: the name of the file that says what it was begun with.
      begun: what that says.
      more: flags that the file leaves out, with their values.
    """
    flags = dict(begun["settings"]) | dict(more)
    origin = {name: begun[name] for name in ORIGIN if begun.get(name) is not None}
    return [{
        "root": str(root),
        "file": file,
        "commands": _lines(["python", "launch/search.py", begun["search"], *(f"--{n}={v}" for n, v in flags.items())]),
        "sessions": _sessions([origin] if origin else [], "What it was begun with."),
        "settings": _json(flags),
    }]  # fmt: skip


def _lines(words: Sequence[str]) -> str:
    """A command in as many lines as it needs."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) > WIDTH:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def _json(settings: Any) -> str:
    return json.dumps(settings, indent=1, ensure_ascii=False)


def _sessions(found: list[dict[str, Any]], caption: str) -> dict[str, Any] | None:
    """A table with one row a session: versions, commit, device, and whatever else was recorded."""
    if not found:
        return None
    flat = [
        {key: value for key, value in one.items() if key != "versions"}
        | (one["versions"] if isinstance(one.get("versions"), dict) else {})
        for one in found
    ]
    names = list(dict.fromkeys(name for one in flat for name in one))
    rows = [["–" if one.get(name) is None else str(one[name]) for name in names] for one in flat]
    return {"caption": caption, "names": names, "rows": rows}
