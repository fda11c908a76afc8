"""The one exception whose message is meant for the person at the keyboard."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The launch programs print it as one line on stderr and exit with status 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name outside a family: suggests the first it begins, or the nearest, and lists them all."""
    known = tuple(known)
    near = [other for other in known if other.startswith(f"{name}/")] or difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}")
