"""The command, the settings and the versions to repeat a study with."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

from sparse_jax.config import RunConfig, StudyConfig, settings
from sparse_jax.report.records import Source, sessions
from sparse_jax.values import show

PROGRAM = "python launch/train.py"


def again(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What the page shows of every workdir."""
    return [_one(source) for source in sources]


def _one(source: Source) -> dict[str, Any]:
    commands = source.config.get("commands")
    recorded = isinstance(commands, list) and all(isinstance(command, str) for command in commands) and bool(commands)
    origin = "As it was started." if recorded else (
        "Written from the settings in config.json; settings not named are at their defaults."
    )  # fmt: skip
    shown = {name: value for name, value in source.config.items() if name not in ("runs", "sessions", "commands")}
    return {
        "root": str(source.store.root),
        "origin": origin,
        "commands": "\n".join(commands) if recorded else command_of(source),
        "sessions": _sessions(sessions(source)),
        "settings": json.dumps(shown, indent=1, ensure_ascii=False),
    }


def command_of(source: Source) -> str:
    """The command that asks for this study, as far as its settings are known to this version."""
    given = source.config.get("settings")
    fields = settings(RunConfig) | settings(StudyConfig)
    words = []
    for name, values in (given if isinstance(given, dict) else {}).items():
        if name not in fields or not isinstance(values, list):
            continue
        plain = [tuple(value) if isinstance(value, list) else value for value in values]
        if plain != [fields[name].default]:
            separator = ";" if fields[name].metadata["kind"] == "sizes" else ","
            words.append(f"--{name}={separator.join(map(show, plain))}")
    words.append(f"--workdir={source.store.root}")
    return " \\\n    ".join([PROGRAM, *map(shlex.quote, words)])


def _sessions(found: list[dict[str, Any]]) -> dict[str, Any] | None:
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
    return {"names": names, "rows": rows}
