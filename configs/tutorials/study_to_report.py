"""A study from nothing to its report: SET against static masks on handwritten digits, and what its files tell.

    python configs/tutorials/study_to_report.py [WORKDIR]      (with sparse_jax installed: pip install -e .)

Training and report are the two programs of every study. What lies in the workdir is tables, which pandas reads; the
statistics that the report shows are functions of `sparse_jax.analysis`, to be used on any numbers.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from sparse_jax.analysis.comparison import paired
from sparse_jax.analysis.law import choose
from sparse_jax.analysis.reading import invert

LAUNCH = Path(__file__).parents[2] / "launch"
STUDY = (
    "--dataset=digits", "--hidden_sizes=100,50", "--method=static,set", "--sparsity=0.8,0.9,0.93,0.95,0.96,0.97,0.98",
    "--num_seeds=5", "--epochs=20", "--batch_size=32", "--learning_rate=0.05",
)  # fmt: skip
CONFIDENCE = 0.95


def launch(program: str, *arguments: str) -> None:
    """Run a program of this project as from a shell."""
    subprocess.run([sys.executable, LAUNCH / program, *arguments], check=True)


def main(workdir: str = "results/tutorial") -> float:
    """Train, read, compare, fit, report; returns SET's mean accuracy at 90 % sparsity."""
    launch("train.py", *STUDY, f"--workdir={workdir}")  # started again it goes on, or finds that all is done
    runs = pd.read_csv(Path(workdir) / "results.csv")
    accuracy = runs.pivot_table("test_accuracy", ["sparsity_target", "seed"], "method")

    print("\nSET less static, over the same seeds")
    for sparsity, level in accuracy.groupby("sparsity_target"):
        by_seed = {method: level[method].droplevel("sparsity_target").to_dict() for method in level}
        found = paired(by_seed["set"], by_seed["static"], CONFIDENCE)
        mean, low, high = (100 * value for value in found.mean)
        print(f"  at {sparsity:.0%}: {mean:+6.2f} points ({low:+.2f} to {high:+.2f}), p = {found.p_value:.3f}")

    print("\nWhich sparsity still gives 90 % accuracy, by the law of each method")
    for method, of_method in runs.groupby("method"):
        levels = {1 - sparsity: level.tolist() for sparsity, level in of_method.groupby("sparsity")["test_accuracy"]}
        chosen = choose(levels, chance=of_method["majority"].mean())
        sparsity = invert(chosen.fit, 0.9, CONFIDENCE).sparsity
        error = 100 * chosen.held_out[chosen.fit.family].error
        print(f"  {method:7} {sparsity.value:.3f} ({sparsity.low:.3f} to {sparsity.high:.3f}); {chosen.fit.family}, "
              f"{error:.1f} points of held-out error")  # fmt: skip

    print()
    launch("report.py", workdir)  # the same and more, as a page
    return float(accuracy.loc[0.9, "set"].mean())


if __name__ == "__main__":
    main(*sys.argv[1:])
