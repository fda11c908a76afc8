"""Truly sparse training, and the network used elsewhere: 2,000 hidden neurons, one connection in 50.

    python configs/tutorials/sparse_and_export.py [FOLDER]      (with sparse_jax installed: pip install -e .)

With --execution=sparse no matrix of a layer is ever made. The export has the connections as CSR matrices, which SciPy
multiplies, and the whole network as StableHLO, which jax.export loads without this project.
"""

import json
import subprocess
import sys
from pathlib import Path

import jax.export
import numpy as np
from scipy import sparse
from sklearn.datasets import load_digits

LAUNCH = Path(__file__).parents[2] / "launch"
STUDY = (
    "--dataset=digits", "--hidden_sizes=1000,1000", "--method=set", "--epsilon=5", "--execution=sparse", "--epochs=20",
    "--batch_size=32", "--learning_rate=0.05",
)  # fmt: skip


def launch(program: str, *arguments: str) -> None:
    """Run a program of this project as from a shell."""
    subprocess.run([sys.executable, LAUNCH / program, *arguments], check=True)


def by_scipy(folder: Path, layers: list[str], images: np.ndarray) -> np.ndarray:
    """Logits of raw images by the exported matrices: W x + b and ReLU between them; float32[images, classes]."""
    weights = np.load(folder / "weights.npz")
    x = (images - weights["normalization:shift"]) * weights["normalization:scale"]
    x = x.reshape(len(images), -1).T
    for name in layers:
        x = sparse.load_npz(folder / "csr" / f"{name}.npz") @ x + weights[f"{name}/bias"][:, None]
        if name != layers[-1]:
            x = np.maximum(x, 0)
    return x.T


def main(folder: str = "results/tutorial_export") -> float:
    """Train, export, and compute the same logits twice without this project; returns the accuracy on the test part."""
    workdir = Path(folder) / "study"
    launch("train.py", *STUDY, f"--workdir={workdir}")
    run = max((workdir / "runs").iterdir(), key=lambda run: (run / "result.json").stat().st_mtime)
    exported = Path(folder) / "exported" / run.name
    exported.parent.mkdir(exist_ok=True)
    if not exported.exists():
        launch("evaluate.py", f"--run={run}", f"--export={exported}")

    about = json.loads((exported / "model.json").read_text())
    for layer in about["layers"]:
        before, after = ("{} x {}".format(*each["shape"]) for each in (layer, layer["exported"]))
        print(f"{layer['name']:8} {layer['connections']:6,} connections of {before}, without dead neurons {after}")
    images = load_digits().images[..., None].astype(about["input"]["dtype"])
    model = jax.export.deserialize((exported / "model.stablehlo").read_bytes())
    logits = np.asarray(model.call(images))
    others = by_scipy(exported, [layer["name"] for layer in about["layers"]], images)
    assert np.allclose(logits, others, rtol=1e-3, atol=1e-3)
    print(f"SciPy and StableHLO differ by {np.abs(logits - others).max():.1e} at most")
    scores = about["scores"]["digits"]["test"]
    print(f"test accuracy {scores['accuracy']:.4f} of {scores['examples']} images")
    return scores["accuracy"]


if __name__ == "__main__":
    main(*sys.argv[1:])
