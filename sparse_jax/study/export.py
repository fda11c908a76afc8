"""A trained network in files that other programs read.

    model.json        what the other files are
    weights.npz       every parameter of the exported network, and the normalisation of its inputs
    csr/<layer>.npz   W[outputs, inputs] of each dense layer that has a mask or is executed sparsely
    model.stablehlo   raw inputs -> logits

Such a matrix is in weights.npz as <layer>/kernel:data, :indices, :indptr and :shape; other kernels are dense, with
inputs before outputs, as linen has them. Connections of weight zero are entries, too.
"""

import dataclasses
import io
import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import sparse

from sparse_jax.data.normalization import Normalization
from sparse_jax.data.splits import Splits
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.sparse.layer import KERNEL, LINKS
from sparse_jax.study.folder import new_path, write_folder
from sparse_jax.study.portable import Compaction, Network, compact
from sparse_jax.study.provenance import versions
from sparse_jax.study.trained import Trained
from sparse_jax.topology.masks import name_of
from sparse_jax.training.evaluation import EVALUATION_BATCH
from sparse_jax.training.flops import product
from sparse_jax.training.inference import PLATFORMS, export_inference
from sparse_jax.training.problem import Problem

ABOUT, WEIGHTS, MATRICES, PROGRAM = "model.json", "weights.npz", "csr", "model.stablehlo"


def check_folder(path: str) -> Path:
    """The folder to export to. Raises UserError if it is there and not empty, or cannot be, or a package is missing."""
    if find_spec("flatbuffers") is None:  # of which JAX says no more than that serialisation needs it
        raise UserError("--export needs the package flatbuffers: pip install flatbuffers")
    return new_path(path, f"--export={path}", folder=True)


def export(
    trained: Trained,
    problem: Problem,
    normalization: Normalization,
    parts: Splits,
    scores: Mapping[str, Any],
    path: str,
) -> list[str]:
    """Write the folder, whole or not at all.

    Args:
      trained: the network.
      problem: of its run.
      normalization: of its inputs.
      parts: of its own data set.
      scores: what model.json says of its accuracy, by data set.
      path: of the folder, which `check_folder` takes.

    Returns:
      What was written and what was left out, in lines for the user.

    Raises:
      UserError: it cannot be written.
    """
    folder, examples = check_folder(path), parts.x[-EVALUATION_BATCH:]
    done = compact(trained, problem, normalization, examples)
    function = done.network.function(trained, problem, normalization)
    files = {WEIGHTS: _npz(_arrays(done.network, normalization))}
    files |= {f"{MATRICES}/{_layer(name)}.npz": _csr(kernel) for name, kernel in done.network.matrices.items()}
    files[PROGRAM] = export_inference(function, examples.shape[1:], examples.dtype)
    about = _about(trained, problem, done, scores, examples)
    files[ABOUT] = f"{json.dumps(about, indent=2, allow_nan=False)}\n".encode()
    try:
        write_folder(folder, files.items())
    except OSError as error:
        raise UserError(f"--export={path} cannot be written: {error.strerror}") from None
    matrices = sum(len(content) for name, content in files.items() if name.startswith(MATRICES))
    sizes = {name: len(files[name]) for name in (ABOUT, WEIGHTS, PROGRAM)} | ({MATRICES: matrices} if matrices else {})
    return [done.note, f"exported to {path}: {', '.join(f'{name} {_kb(size)}' for name, size in sizes.items())}"]


def _kb(size: int) -> str:
    return f"{size / 1e3:,.1f} kB"


def _layer(name: str) -> str:
    return name.removesuffix(f"/{KERNEL}")


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _csr(kernel: sparse.csr_array) -> bytes:
    content = io.BytesIO()
    sparse.save_npz(content, kernel)
    return content.getvalue()


def _arrays(network: Network, normalization: Normalization) -> dict[str, np.ndarray]:
    """What weights.npz holds."""
    others = {name: tree for name, tree in network.model_state.items() if name != LINKS}
    leaves = jax.tree_util.tree_leaves_with_path(network.params) + jax.tree_util.tree_leaves_with_path(others)
    arrays = {name_of(path): np.asarray(leaf) for path, leaf in leaves}
    for name, kernel in network.matrices.items():
        del arrays[name]
        fields = {"data": kernel.data, "indices": kernel.indices, "indptr": kernel.indptr, "shape": kernel.shape}
        arrays |= {f"{name}:{field}": np.asarray(value) for field, value in fields.items()}
    return arrays | {f"normalization:{field}": np.asarray(value) for field, value in normalization._asdict().items()}


# --- model.json ------------------------------------------------------------------------------------


def _about(
    trained: Trained, problem: Problem, done: Compaction, scores: Mapping[str, Any], examples: np.ndarray
) -> dict[str, Any]:
    config, exported = trained.config, _layers(trained, done.network)
    before = {name: (shape, trained.connections.get(name, math.prod(shape))) for name, shape in trained.kernels.items()}
    layers = [
        {"name": _layer(name), "shape": before[name][0], "connections": before[name][1],
         "exported": {"shape": exported[name][0], "connections": exported[name][1]}}
        for name in trained.kernels
    ]  # fmt: skip
    applications = OUTLINES[config.model].applications(config, problem.input_shape)
    flops = [product(trained.kernels, applications, {name: n for name, (_, n) in each.items()})
             for each in (before, exported)]  # fmt: skip
    compaction = {"note": done.note, "kept_neurons": done.kept, "largest_relative_difference": done.difference}
    shape, dtype = list(examples.shape[1:]), examples.dtype.name
    return {
        "run": trained.place.id,
        "network": trained.which,
        "step": trained.step,
        "settings": dataclasses.asdict(config),
        "input": {"shape": shape, "dtype": dtype, "normalization": config.normalization},
        "classes": problem.classes,
        "scores": _finite(scores),
        "execution": config.execution,
        "layers": layers,
        "flops_per_example": {"trained": flops[0], "exported": flops[1]},
        "compaction": compaction,
        "files": _files(),
        "load": [
            "import jax.export, numpy as np",
            f"model = jax.export.deserialize(open({PROGRAM!r}, 'rb').read())",
            f"logits = model.call(np.zeros({(1, *shape)}, np.{dtype}))",
        ],
        "platforms": list(PLATFORMS),
        "versions": versions(),
    }


def _layers(trained: Trained, network: Network) -> dict[str, tuple[list[int], int]]:
    """Shape and connections of every kernel of the network that is exported."""
    kernels = {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(network.params)}
    found = {}
    for name in trained.kernels:
        matrix = network.matrices.get(name)
        shape = list(kernels[name].shape if matrix is None else matrix.shape[::-1])
        count = trained.connections.get(name, math.prod(shape)) if matrix is None else matrix.nnz
        found[name] = shape, count
    return found


def _finite(value: Any) -> Any:
    """As strict JSON holds it: None for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return value if math.isfinite(value) else None


def _files() -> dict[str, str]:
    return {
        PROGRAM: "jax.export: raw inputs[batch, ...] -> logits float32[batch, classes]; normalisation is inside",
        WEIGHTS: "parameters; <layer>/kernel:data, :indices, :indptr and :shape are a CSR matrix W[outputs, inputs], "
        "other kernels have inputs before outputs; normalised inputs are (x - normalization:shift) * "
        "normalization:scale, after which per_sample and l2 scale every example by itself",
        f"{MATRICES}/<layer>.npz": "the same matrices: scipy.sparse.load_npz(file) @ x + bias",
    }
