"""The commands, the settings and the versions to repeat a study with."""

import json
from collections.abc import Sequence
from typing import Any

from sparse_jax.report.records import Source, asked, sessions


def again(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What the page shows of every workdir."""
    return [_one(source) for source in sources]


def _one(source: Source) -> dict[str, Any]:
    entries = asked(source)
    return {
        "root": str(source.store.root),
        "commands": "\n".join(str(entry.get("command")) for entry in entries),
        "sessions": _sessions(sessions(source)),
        "settings": json.dumps([entry.get("settings") for entry in entries], indent=1, ensure_ascii=False),
    }


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
