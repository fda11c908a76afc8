"""From workdirs to files: the page, every figure as PDF, PNG and CSV, every table as CSV and LaTeX."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import vl_convert

from sparse_jax.errors import UserError
from sparse_jax.report import page
from sparse_jax.report.exhibits import Figure, Section, find
from sparse_jax.report.frames import applies, layout_of
from sparse_jax.report.published import Published, read_published
from sparse_jax.report.records import Source, open_sources, read
from sparse_jax.report.replications import published_section
from sparse_jax.report.search_files import Search, roots_of
from sparse_jax.report.searches import open_search, search_page
from sparse_jax.report.sections import sections
from sparse_jax.report.style import theme
from sparse_jax.report.tables import Table, latex, to_csv
from sparse_jax.study.files import write_atomic

FOLDER = "report"  # within the first workdir, unless another place is named
SHARPNESS = 2  # pixels of a PNG by pixels of the chart


class Contents(NamedTuple):
    """Everything of a report, as the workdirs are now."""

    sections: list[Section]
    runs: Table | None  # the table of all runs; a search has none
    html: Callable[[float | None], str]  # seconds until the page loads itself again, None for never -> the page
    complete: bool  # whether nothing more is to come


def report(workdirs: Sequence[str], out: str, follow: float | None, published: Sequence[str] = ()) -> int:
    """Build the report of these workdirs, once or until the study, or the search, is complete.

    Args:
      workdirs: one or several of studies, which are merged; or that of one search.
      out: folder to write to; "" for `report` in the first workdir.
      follow: seconds between two builds while there is more to come; None to build once.
      published: files of accuracies to set beside those obtained, read anew for every build.

    Returns:
      the exit status, 0.

    Raises:
      UserError: a workdir is none, a search is not alone, a published file is not as it has to be, or the folder
        cannot be written; nothing has been written then.
    """
    opened = _opened(workdirs, published)
    folder = _folder(Path(out).expanduser().absolute() if out else roots_of(workdirs)[0] / FOLDER)
    try:
        complete = build(opened(), folder, follow)
        while follow is not None and not complete:
            time.sleep(follow)
            complete = build(_opened(workdirs, published)(), folder, follow)
    except KeyboardInterrupt:
        if follow is None:
            raise
        build(_opened(workdirs, published)(), folder, None)
        print("stopped following", file=sys.stderr)
    print(f"report: {folder / 'index.html'}")
    return 0


def _opened(workdirs: Sequence[str], published: Sequence[str]) -> Callable[[], Contents]:
    """Check what is asked for; what then reads it all."""
    search = open_search(workdirs, published)
    if search is not None:
        return partial(_of_search, search)
    sources = open_sources(workdirs)
    return partial(_of_study, sources, read_published(published))


def _of_study(sources: Sequence[Source], rows: Sequence[Published]) -> Contents:
    records = read(sources)
    findings = find(records, layout_of(records))
    shown = sections(findings) + ([published_section(findings, rows)] if rows else [])
    html = partial(page.render, findings, shown)
    return Contents(shown, page.runs_table(findings), html, records.complete)


def _of_search(search: Search) -> Contents:
    words, shown = search_page(search)
    return Contents(shown, None, partial(page.fill, words, shown, [], None), search.ended)


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


def build(contents: Contents, folder: Path, follow: float | None) -> bool:
    """Write everything; whether nothing more is to come.

    The page comes last, so that whoever sees it finds what it links to. While it is followed it loads itself.
    """
    _write_parts(contents.sections, folder)
    if contents.runs is not None:
        _write_table(contents.runs, folder)
    _write(folder / "index.html", contents.html(None if contents.complete else follow))
    return contents.complete


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
