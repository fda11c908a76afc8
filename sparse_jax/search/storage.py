"""Where studies of hyper-parameters are remembered: a journal in the workdir, or a database."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from sparse_jax.config import AUTO
from sparse_jax.errors import UserError, unknown

JOURNAL = "tuning.journal"
DATABASES = ("sqlite", "postgresql", "mysql", "mariadb")
# how long, in seconds, a driver of them tries to connect, and that of SQLite waits for others that write
TIMEOUTS = {
    "pysqlite": {"timeout": 60},
    "psycopg": {"connect_timeout": 5},
    "psycopg2": {"connect_timeout": 5},
    "mysqldb": {"connect_timeout": 5},
    "pymysql": {"connect_timeout": 5},
}
# modules of drivers whose package is called otherwise
PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
ATTEMPTS = 5


def open_storage(url: str, folder: Path) -> BaseStorage:
    """Where Optuna keeps its studies.

    "auto" is a journal: one line a change, appended under a lock. Unlike a file of SQLite it may lie on a network
    file system, and it is some ten times faster, as it waits for the disk once a change rather than many times.

    Args:
      url: "auto", or the URL of a database as SQLAlchemy has them: sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME.
      folder: which the journal lies in; it exists.

    Raises:
      UserError: it cannot be opened; the message has no password in it.
    """
    return _journal(folder / JOURNAL) if url == AUTO else _database(url)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna says nothing but warnings."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


# --- the journal -----------------------------------------------------------------------------------


class _Lock:
    """Of a journal, between processes; that of the file system (flock), so that a killed worker holds nothing.

    Optuna's own is a link beside the file, which whoever is killed leaves behind for others to wait for. Whoever has
    the lock drops a last line that was cut short (a full disk, a power failure): with another behind it, it would make
    the journal unreadable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def acquire(self) -> bool:
        self._file = self._path.open("rb+")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        _drop_unfinished(self._file)
        return True

    def release(self) -> None:
        self._file.close()


def _drop_unfinished(file: BinaryIO) -> None:
    """Cut a file after its last newline."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read() not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _journal(path: Path) -> BaseStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_Lock(path)))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): use a workdir that can") from None
    except (ValueError, KeyError):
        raise UserError(f"{path} is damaged: delete it to begin the tuning anew") from None


# --- databases -------------------------------------------------------------------------------------


def _database(url: str) -> BaseStorage:
    parsed = _parsed(url)
    shown = parsed.set(query={}).render_as_string()  # with *** for its password; the query may have one as well
    try:
        driver = parsed.get_dialect().driver
        options = {"connect_args": TIMEOUTS.get(driver, {}), "pool_pre_ping": True}
        with quiet():
            return get_storage(_made(url, options))
    except ImportError as error:
        module = (error.__cause__ or error).name
        package = PACKAGES.get(module, module)
        raise UserError(f"the storage {shown} needs the package {package}: pip install '{package}'") from None
    except Exception as error:  # of SQLAlchemy, of the driver, of the database: it is the URL that leads to it
        raise UserError(
            f"the storage {shown} cannot be opened ({_reason(error, parsed.password)}): see that it is there, that its "
            "name and password are right, and that it can be written"
        ) from None


def _parsed(url: str) -> sqlalchemy.URL:
    """Raises UserError for what is no URL of a database that lasts."""
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        name, colon, _ = url.partition(":")  # where a password would be in the rest is unknown
        shown = f"{name}:..." if colon else name
        raise UserError(
            f"the storage {shown} is no URL of a database, such as sqlite:///PATH or postgresql://USER@HOST/NAME"
        ) from None
    name = parsed.get_backend_name()
    if name not in DATABASES:
        raise unknown("database", name, DATABASES)
    if name == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UserError("a storage of SQLite without a file forgets all: name one, as in sqlite:///PATH")
    return parsed


def _made(url: str, options: dict) -> RDBStorage:
    """With its tables, created if absent: of several workers that do so at once, all but one fail, and look again.

    Raises:
      sqlalchemy.exc.SQLAlchemyError: and others; it cannot be opened.
    """
    template = url.replace("{", "{{").replace("}", "}}")  # Optuna fills in fields of its own
    for _ in range(ATTEMPTS - 1):
        try:
            return RDBStorage(template, options)
        except sqlalchemy.exc.DBAPIError as error:
            if not re.search("exists|duplicate|unique", str(error.orig), re.IGNORECASE):
                raise
    return RDBStorage(template, options)


def _reason(error: Exception, password: str | None) -> str:
    """The first line of what a driver says, or an error without one, with *** for the password."""
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    line = (str(cause).strip().splitlines() or [type(error).__name__])[0]
    return line.replace(str(password), "***") if password else line
