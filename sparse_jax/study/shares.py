"""Who trains which cohort, where several workers have one study between them."""

from collections.abc import Callable, Sequence

from sparse_jax.study.grid import Cohort
from sparse_jax.study.store import Store


def in_turn(cohorts: Sequence[Cohort], shard: str, takeover: bool) -> list[Cohort]:
    """The cohorts in the order in which worker i of n tries them: its share, every n-th; then, to help, the others'.

    Args:
      cohorts: of the study.
      shard: i/n, with i from 1 to n.
      takeover: whether it helps.
    """
    index, count = map(int, shard.split("/"))
    shares = [list(cohorts[start::count]) for start in range(count)]
    turn = shares[index - 1 :] + shares[: index - 1] if takeover else [shares[index - 1]]
    return [cohort for share in turn for cohort in share]


def work_through(
    cohorts: Sequence[Cohort], store: Store, left: Callable[[Cohort], bool], train: Callable[[Cohort], bool]
) -> dict[str, str] | None:
    """Train every cohort that has something left and that nobody else has, until there is none.

    A cohort that another worker had is looked at again after each round: it may have been left by a worker that died.

    Args:
      cohorts: in the order in which to try them.
      store: of the study.
      left: whether a cohort has runs to train.
      train: trains them, with the lock of the cohort held; False if it was asked to stop.

    Returns:
      Cohort -> who has it, of those that are not finished, when nothing is left to claim; None if asked to stop.
    """
    while True:
        held: dict[str, str] = {}
        trained = False
        for cohort in filter(left, cohorts):
            with store.claim(cohort.id) as holder:
                if holder is not None:
                    held[cohort.id] = holder
                elif left(cohort):  # nobody has finished it meanwhile
                    trained = True
                    if not train(cohort):
                        return None
        if not trained:
            return held
