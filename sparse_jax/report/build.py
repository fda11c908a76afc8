"""From workdirs to files: the page, every figure as PDF, PNG and CSV, every table as CSV and LaTeX."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import vl_convert

from sparse_jax.errors import UserError
from sparse_jax.report import page
from sparse_jax.report.exhibits import Figure, Section, find
from sparse_jax.report.frames import applies, layout_of
from sparse_jax.report.published import read_published
from sparse_jax.report.records import Source, open_sources, read
from sparse_jax.report.replications import published_section
from sparse_jax.report.sections import sections
from sparse_jax.report.style import theme
from sparse_jax.report.tables import Table, latex, to_csv
from sparse_jax.study.store import write_atomic

FOLDER = "report"  # within the first workdir, unless another place is named
SHARPNESS = 2  # pixels of a PNG by pixels of the chart


def report(workdirs: Sequence[str], out: str, follow: float | None, published: Sequence[str] = ()) -> int:
    """Build the report of these workdirs, once or until the study is complete.

    Args:
      workdirs: one or several; several are merged.
      out: folder to write to; "" for `report` in the first workdir.
      follow: seconds between two builds while runs are unfinished; None to build once.
      published: files of accuracies to set beside those obtained, read anew for every build.

    Returns:
      the exit status, 0.

    Raises:
      UserError: a workdir is none, a published file is not as it has to be, or the folder cannot be written; nothing
        has been written then.
    """
    sources = open_sources(workdirs)
    read_published(published)
    folder = _folder(Path(out).expanduser().absolute() if out else sources[0].store.root / FOLDER)
    try:
        complete = build(sources, folder, follow, published)
        while follow is not None and not complete:
            time.sleep(follow)
            complete = build(open_sources(workdirs), folder, follow, published)
    except KeyboardInterrupt:
        if follow is None:
            raise
        build(open_sources(workdirs), folder, None, published)
        print("stopped following", file=sys.stderr)
    print(f"report: {folder / 'index.html'}")
    return 0


def _folder(folder: Path) -> Path:
    """Make the folders of a report."""
    try:
        for name in ("", "figures", "tables"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def build(sources: Sequence[Source], folder: Path, follow: float | None, published: Sequence[str]) -> bool:
    """Write everything as the workdirs are now; whether every planned run has ended.

    The page comes last, so that whoever sees it finds what it links to. While a study is followed it loads itself.
    """
    rows = read_published(published)
    records = read(sources)
    findings = find(records, layout_of(records))
    shown = sections(findings) + ([published_section(findings, rows)] if rows else [])
    _write_parts(shown, folder)
    _write_table(page.runs_table(findings), folder)
    refresh = None if records.complete else follow
    _write(folder / "index.html", page.render(findings, shown, refresh))
    return records.complete


def _write_parts(shown: list[Section], folder: Path) -> None:
    for part in (part for section in shown for part in section.parts):
        if isinstance(part, Figure):
            _write_figure(part, folder / "figures")
        elif isinstance(part, Table):
            _write_table(part, folder)


def _write_figure(figure: Figure, folder: Path) -> None:
    """The data whole; the chart with one value of the settings of which it shows one at a time."""
    _write(folder / f"{figure.id}.csv", to_csv(figure.data))
    chosen = applies(figure.data, figure.single)
    spec = page.specification(figure.draw(figure.data if chosen.empty else chosen))
    text = json.dumps(spec | {"config": theme(dark=False)})
    _write(folder / f"{figure.id}.pdf", vl_convert.vegalite_to_pdf(text, vl_version=page.SCHEMA))
    _write(folder / f"{figure.id}.png", vl_convert.vegalite_to_png(text, vl_version=page.SCHEMA, scale=SHARPNESS))


def _write_table(table: Table, folder: Path) -> None:
    _write(folder / "tables" / f"{table.id}.csv", to_csv(table.frame if table.whole is None else table.whole))
    _write(folder / "tables" / f"{table.id}.tex", latex(table))


def _write(path: Path, content: str | bytes) -> None:
    """Replace the file, unless it holds this already: most of a report that is followed stays as it is."""
    data = content.encode() if isinstance(content, str) else content
    if not (path.is_file() and path.read_bytes() == data):
        write_atomic(path, data)
