"""One absl flag for every setting, and the frame of every launch program: one clear line for bad input."""

import dataclasses
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from sparse_jax.config import RunConfig, StudyConfig, settings
from sparse_jax.errors import UserError
from sparse_jax.values import read, show

PARTED = ("names", "fractions", "numbers")  # kinds of settings of which a value has several parts
FAILED = 1  # exit status where runs ended with an error
BAD_INPUT = 2
CANNOT_WRITE = 74  # EX_IOERR of sysexits.h
BEGAN = time.monotonic()  # as good as the start of the process: this module is imported first


class Grid(NamedTuple):
    """What the command line asks for: every value of every setting, and which settings it named."""

    axes: dict[str, tuple[Any, ...]]  # fields of RunConfig
    study: StudyConfig
    given: frozenset[str]
    beside: frozenset[str] = frozenset()  # those of a flagfile, where the command line changes what is trained


class _Parser(flags.ArgumentParser):
    """Reads the text of one flag into a tuple of values, one for each point of its axis."""

    def __init__(self, field: dataclasses.Field):
        super().__init__()
        self.field = field
        self.syntactic_help = ""

    def parse(self, argument: Any) -> tuple[Any, ...]:
        if isinstance(argument, tuple):
            return argument
        metadata = self.field.metadata
        separator = ";" if metadata["kind"] == "sizes" else ","
        texts = argument.split(separator) if metadata["kind"] not in ("text", "path") else [argument]
        if len(texts) > 1 and not metadata.get("grid"):
            parted = ", whose parts are separated by colons" if metadata["kind"] in PARTED else ""
            raise ValueError(f"takes one value, not a list{parted}")
        values = tuple(read(self.field, text) for text in texts)
        if len(set(values)) < len(values):
            raise ValueError("names a value twice")
        return values

    def flag_type(self) -> str:
        return self.field.metadata["kind"]


class _Flag(flags.Flag):
    """A flag whose parser reads bool, too: `--noname` and `--name` work as absl's own."""

    def __init__(self, field: dataclasses.Field):
        super().__init__(
            _Parser(field), None, field.name, (field.default,), _help(field),
            boolean=field.metadata["kind"] == "bool",
        )

    def _get_parsed_value_as_string(self, value: Any) -> str | None:
        return None if value is None else show(value[0])


def _help(field: dataclasses.Field) -> str:
    metadata = field.metadata
    parts = [metadata["help"]]
    if "choices" in metadata:
        parts.append(f"One of: {', '.join(metadata['choices'])}.")
    if "bounds" in metadata:
        parts.append(f"In {metadata['bounds'].replace('inf', '∞')}.")
    if metadata.get("grid"):
        parts.append("[grid]")
    return " ".join(parts)


def define(*classes: type) -> None:
    """Define a flag for every setting of the given config classes, under the section of its help."""
    for cls in classes:
        for name in settings(cls):
            define_setting(cls, name)


def define_setting(cls: type, name: str, *, grid: bool = True, default: Any = None) -> flags.FlagHolder:
    """Define the flag of one setting; the holder's value is a tuple, as long as its axis: one without `grid`.

    `default` takes the place of the setting's own in a program for which that makes no sense.
    """
    field = settings(cls)[name]
    if not grid or default is not None:
        metadata = {**field.metadata, "grid": grid and field.metadata.get("grid")}
        own = dataclasses.field(default=field.default if default is None else default, metadata=metadata)
        own.name = name
        field = own
    return flags.DEFINE_flag(_Flag(field), module_name=field.metadata["section"])


def parse(argv: Sequence[str], *, positional: bool = False) -> list[str]:
    """Read the command line into absl's FLAGS; `argv` starts with the program's name.

    Args:
      argv: the command line.
      positional: whether the program takes arguments that are no flags.

    Returns:
      those arguments.

    Raises:
      UserError: for anything absl or a setting's bounds refuse.
    """
    files = [text.partition("=")[2] for text in argv if re.match(r"--?flagfile=", text)]
    if "" in files:
        raise UserError("--flagfile= names no file")
    try:
        rest = flags.FLAGS(list(argv))
    except flags.CantOpenFlagFileError as error:
        raise UserError(f"cannot open the flagfile: {str(error).partition('] ')[2]}") from None
    except UnicodeDecodeError:
        raise UserError(f"the flagfile is no text: {', '.join(files)}") from None
    except (flags.Error, ValueError) as error:  # absl lets a ValueError of --noNAME=VALUE through
        raise UserError(re.sub(r"^flag --(\w+)=(.*?): ", r"--\1: ", " ".join(str(error).split()))) from None
    if len(rest) > 1 and not positional:
        raise UserError(f"unexpected argument {rest[1]!r}: write --name=value, and lists without spaces")
    return rest[1:]


def read_grid(argv: Sequence[str]) -> Grid:
    """The grid that a command line asks for. Raises UserError as `parse` does."""
    parse(argv)
    value = {name: flags.FLAGS[name].value for cls in (RunConfig, StudyConfig) for name in settings(cls)}
    return Grid(
        {name: value[name] for name in settings(RunConfig)},
        StudyConfig(**{name: value[name][0] for name in settings(StudyConfig)}),
        *given(value, argv),
    )


def given(names: Iterable[str], argv: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Which of the settings were asked for, and which came with a flagfile from which the command line departs."""
    present = {name for name in names if flags.FLAGS[name].present}
    written = {re.match(r"--?(\w*)", text)[1] for text in argv if text.startswith("-")}
    typed = present & (written | {name.removeprefix("no") for name in written})
    asked = typed if typed - settings(StudyConfig).keys() else present
    return frozenset(asked), frozenset(present - asked)


_GRID_HELP = """\
Flags can also come from a file, --flagfile=configs/NAME.flags. Those marked [grid] take a list,
comma-separated (semicolons for hidden_sizes): every combination of all lists is trained with every seed.
"""


def help_text(doc: str) -> str:
    """The program's docstring, what a grid is if any of its flags takes one, then every flag by section."""
    listing = flags.FLAGS.get_help(include_special_flags=False)
    listing = re.sub(r"^(\d) (\w+):$", lambda match: f"{match[2].capitalize()}:", listing, flags=re.MULTILINE)
    grid = f"{_GRID_HELP}\n" if "[grid]" in listing else ""
    return f"{doc.strip()}\n\n{grid}{listing}\n"


def run(main: Callable[[Sequence[str]], int | None], doc: str) -> None:
    """Run a launch program: `--help` teaches, bad input is one line on stderr and exit status 2."""
    program = Path(sys.argv[0]).name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's loader of cached programs is noisy on CPU
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    try:
        if {"--help", "-h", "-help", "--helpfull", "--helpshort"} & set(sys.argv[1:]):
            print(help_text(doc), flush=True)
            sys.exit(0)
        sys.exit(main(sys.argv))
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except BrokenPipeError:  # who read has seen enough, as `| head`
        os._exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:  # the threads of a download would go on until they end by themselves
        os._exit(128 + signal.SIGINT)
    except OSError as error:
        print(f"{program}: {error}; once there is room to write, the same command continues", file=sys.stderr)
        sys.stderr.flush()
        os._exit(CANNOT_WRITE)  # the threads of an interrupted write would print what failed once more
