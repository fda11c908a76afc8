"""Build the report of a study, or of a search: one HTML page that needs no network, and figures and tables as files.

  python launch/report.py WORKDIR            writes WORKDIR/report/index.html
  python launch/report.py A B C              one report of the stores of several machines, into A/report
  python launch/report.py WORKDIR --follow   again and again while it runs, until it is complete

The page answers what was found in sentences; then come accuracy against density with its law, heat maps, learning
curves, degrees, connections of the inputs, cost, paired comparisons and ranks, categories and the extreme contour,
the table of all runs, and the command that repeats the study. Its filters act on every figure and on the table.
What cannot be shown says why. Beside it lie

  figures/NAME.pdf, .png, .csv     every figure, and its data
  tables/NAME.csv, .tex            every table; LaTeX with booktabs

A run that is in several stores counts once; where its results differ, the first is shown and the page says so.

Of a search by launch/search.py, alone, the page says what was found and how sure that is, and shows every candidate or
generation on the way, what was chosen and learned, and what it cost; before the end it shows what there is.

--published=FILE.csv sets published accuracies beside those of the study, in a section, figure and table of their own.
The file has a header and one published accuracy a row. Its columns:

  published                       the accuracy, in percent
  published_low, published_high   its bounds, if there are any
  label, source, note             what the paper calls it, where it stands, and whatever else is to be said
  any column of results.csv       a setting of the runs that repeat it, such as model, method or sparsity: a value, or
                                  a shell pattern as from_run:*gmp*. An empty cell fits every run, a dash (–) those
                                  that do not use the setting. sparsity is the one asked for; or, where none was,
                                  that obtained

The runs that fit a row have one mean, with its interval over seeds. If they differ in anything but their seeds there is
none: the row says in what, and one more column can choose. configs/published has such files of several papers.

Examples:
  python launch/report.py --workdir=results/digits-mlp-0123456789
  python launch/report.py results/node1 results/node2 --out=report
  python launch/report.py --workdir=results/digits-mlp-0123456789 --follow=30
  python launch/report.py results/lenets --published=configs/published/alford_2018.csv
  python launch/report.py results/wann_digits
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.errors import UserError

EVERY = 10.0  # seconds, of --follow without a number


class _Seconds(absl_flags.ArgumentParser):
    """Reads the value of --follow: absl hands over `true` for the flag alone, and `false` for --nofollow."""

    syntactic_help = ""

    def parse(self, argument: str | float | None) -> float | None:
        if argument in (None, "true", "false"):
            return EVERY if argument == "true" else None
        try:
            seconds = float(argument)
        except ValueError:
            raise ValueError(f"{argument!r} is not a number of seconds") from None
        if not 0 < seconds <= 86_400:
            raise ValueError(f"{argument} is outside (0, 86400]")
        return seconds

    def flag_type(self) -> str:
        return "seconds"


_WORKDIR = absl_flags.DEFINE_string("workdir", "", "Folder of a study or search; or name one or more without a flag.")
_OUT = absl_flags.DEFINE_string("out", "", "Folder to write to; the default is `report` in the first workdir.")
_FOLLOW = absl_flags.DEFINE_flag(
    absl_flags.Flag(
        _Seconds(), None, "follow", None,
        f"Build again after so many seconds ({EVERY:g} unless given) until nothing is unfinished; Ctrl-C ends it.",
        boolean=True,
    )
)  # fmt: skip

_PUBLISHED = absl_flags.DEFINE_multi_string(
    "published", [], "CSV file of published accuracies, to be shown beside those of the study"
)


def main(argv: Sequence[str]) -> int:
    """Build the report of the workdirs that the command line names."""
    named = flags.parse(argv, positional=True)
    workdirs = [*([_WORKDIR.value] if _WORKDIR.value else []), *named]
    if not workdirs:
        raise UserError("which study? --workdir=DIR names its folder")
    from sparse_jax.report.build import report

    return report(workdirs, _OUT.value, _FOLLOW.value, _PUBLISHED.value)


if __name__ == "__main__":
    flags.run(main, __doc__)
