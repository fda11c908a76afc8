"""The report of a search: which page it has, by its kind."""

from collections.abc import Callable, Sequence

from sparse_jax.errors import UserError, unknown
from sparse_jax.report.exhibits import Section, Words
from sparse_jax.report.safs_headline import safs_page
from sparse_jax.report.search_files import SETTINGS, Search, holds_search, read_search, roots_of
from sparse_jax.report.wann_parts import wann_page

# kind, as search.json has it -> what the page of such a search says
SEARCHES: dict[str, Callable[[Search], tuple[Words, list[Section]]]] = {"safs": safs_page, "wann": wann_page}


def open_search(workdirs: Sequence[str], published: Sequence[str]) -> Search | None:
    """The search that is to be shown; None where no workdir holds one.

    Raises:
      UserError: it is not alone, is to have published accuracies beside it, is of an unknown kind, or search.json is
        damaged.
    """
    every = roots_of(workdirs)
    roots = [root for root in every if holds_search(root)]
    if not roots:
        return None
    if len(roots) > 1:
        raise UserError(f"a report has one search, and {roots[0]} and {roots[1]} are two: name one of them")
    if len(every) > 1:
        raise UserError(f"{roots[0]} holds a search: it cannot be in one report with anything else, so name it alone")
    if published:
        raise UserError(f"--published goes with a study, and {roots[0]} holds a search: leave it out")
    search = read_search(roots[0])
    if search.kind not in SEARCHES:
        raise unknown(f"search in {roots[0] / SETTINGS}", search.kind, SEARCHES)
    return search


def search_page(search: Search) -> tuple[Words, list[Section]]:
    """What the page of a search says."""
    return SEARCHES[search.kind](search)
