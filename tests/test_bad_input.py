"""Bad input ends in one line on stderr and exit status 2, before jax is imported and anything is written."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparse_jax.config import RunConfig, StudyConfig, settings
from sparse_jax.study.mask_file import save_masks
from tests.records import write_records, write_set
from tests.served import Served

REPOSITORY = Path(__file__).parents[1]
TOUCHED_JAX = 99
LONG = 300 * "x"
MAP = "--layer_sparsity=dense_0=0.9:dense_1=0.8:output=0.5"

GOOD = {
    "x_train": np.arange(12.0).reshape(6, 2), "y_train": np.arange(6) % 2,
    "x_test": np.ones((2, 2)), "y_test": np.array([0, 1]),
}  # fmt: skip
NPZ = {  # what is wrong with a data set -> its arrays
    "nothing": GOOD,
    "incomplete": {name: GOOD[name] for name in ("x_train", "y_train")},
    "nan": GOOD | {"x_train": np.full((6, 2), np.nan)},
    "infinite": GOOD | {"x_test": np.full((2, 2), -np.inf)},
    "pickled": GOOD | {"x_train": np.full((6, 2), None)},
    "empty": GOOD | {"x_test": np.ones((0, 2)), "y_test": np.arange(0)},
    "lengths": GOOD | {"y_train": np.arange(5) % 2},
    "two_scales": GOOD | {"x_train": np.arange(12, dtype=np.uint8).reshape(6, 2)},
    "shapes": GOOD | {"x_test": np.ones((2, 3))},
    "flat": GOOD | {"x_train": np.ones(6)},
    "gap": GOOD | {"y_train": np.arange(6) % 2 * 2},
    "one_class": GOOD | {"y_train": np.zeros(6, int)},
    "float_labels": GOOD | {"y_train": np.ones(6)},
    "negative": GOOD | {"y_test": np.array([0, -1])},
    "stranger": GOOD | {"y_test": np.array([0, 7])},
}
ROWS = "a,b,label\n" + 6 * "1,2,p\n3,4,q\n"
CSV = {  # what is wrong with a table -> its text
    "nothing": ROWS, "ragged": f"{ROWS}5,p\n", "hole": f"{ROWS}5,,p\n", "text": f"{ROWS}5,x,p\n",
    "nan": f"{ROWS}nan,6,p\n", "no_label": f"{ROWS}5,6,\n", "alone": f"{ROWS}5,6,r\n", "empty": "", "header": "a,b\n",
    "one_class": "1,2,p\n3,4,p\n", "semicolons": "1;2;p\n3;4;q\n", "both": "1,2,y\n3,4,n\n5,6,y\n",
}  # fmt: skip
METADATA = {  # what is wrong with a TFDS folder -> its dataset_info.json, its features.json
    "truncated": ('{"splits": [', "{}"),
    "other_keys": ("{}", '{"featuresDict": {}}'),
    "text_counts": ('{"splits": [{"name": "train", "shardLengths": ["many"]}]}', "{}"),
    "list": ("[]", "[]"),
}


class World:
    """A folder to start programs in, files to name to them in ../given, and a jax that must not be touched."""

    def __init__(self, root, served):
        self.root, self.here, self.served = root, root / "here", served
        self.environment = environment(root)
        self.here.mkdir()
        given = root / "given"
        for folder in ("folder.npz", "broken", "foreign", "mnist/3.0.1"):
            (given / folder).mkdir(parents=True)
        for name, arrays in NPZ.items():
            np.savez(given / f"{name}.npz", **arrays)
        for name, text in CSV.items():
            (given / f"{name}.csv").write_text(text)
        (given / "utf16.csv").write_text(ROWS, "utf-16")
        (given / "folder.csv").mkdir()
        for name, texts in METADATA.items():
            folder = given / name / "emnist" / "balanced" / "3.1.0"
            folder.mkdir(parents=True)
            for file, text in zip(("dataset_info.json", "features.json"), texts, strict=True):
                (folder / file).write_text(text)
        (given / "truncated.npz").write_bytes((given / "nothing.npz").read_bytes()[:200])
        (given / "file").touch()
        (given / "file.npz").write_text("x_train")
        (given / "broken" / "config.json").write_text("{")
        (given / "foreign" / "config.json").write_text("{}")
        (given / "binary.flags").write_bytes(b"\xff\xfe\x00")
        (given / "wrong.flags").write_text("--method=sett\n")
        (given / "nested.flags").write_text("--flagfile=gone.flags\n")
        (given / "dashless.flags").write_text("sparsity=0.5\n")
        (given / "set.flags").write_text("--method=set\n--drop_fraction=0.2\n--epsilon=9\n")
        (given / "unused.flags").write_text("--method=dense\n--drop_fraction=0.2\n")

    def train(self, line, cwd=None):
        program, here = REPOSITORY / "launch" / "train.py", cwd or self.here
        return self.served.run(program, *shlex.split(line), cwd=here, env=self.environment)

    def refusal(self, line, cwd=None):
        """The message, after the proof that it is one line and all that happened."""
        before = self.files()
        result = self.train(line, cwd)
        assert (result.returncode, result.stdout, self.files()) == (2, "", before), result.stderr[-1000:]
        assert re.fullmatch(r"train\.py: .+\n", result.stderr), result.stderr
        return result.stderr

    def files(self):
        return {path: path.read_bytes() if path.is_file() else None for path in self.root.rglob("*")}


def environment(home, *path):
    """Of a user who has little."""
    return {
        "PATH": os.environ["PATH"], "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (*path, REPOSITORY))),
    }  # fmt: skip


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options)


@pytest.fixture(scope="module")
def no_jax(tmp_path_factory):
    """A folder with a jax that ends what imports it."""
    folder = tmp_path_factory.mktemp("no_jax")
    (folder / "jax").mkdir()
    (folder / "jax" / "__init__.py").write_text(f"import os; os._exit({TOUCHED_JAX})")
    return folder


@pytest.fixture(scope="module")
def served(no_jax):
    with Served("sparse_jax.study.run", "sklearn.datasets", env=environment(no_jax, no_jax)) as served:
        yield served


@pytest.fixture
def world(tmp_path, served):
    return World(tmp_path, served)


@pytest.mark.parametrize(("line", "status"), [("--sparsity=7", 2), ("--workdir=study", TOUCHED_JAX)])
def test_a_program_that_is_served_ends_as_one_that_is_started(world, no_jax, line, status):
    started = python(REPOSITORY / "launch" / "train.py", line, cwd=world.here, env=environment(world.root, no_jax))
    shutil.rmtree(world.here)
    world.here.mkdir()
    found = world.train(line)
    expected = (status, started.stdout, started.stderr)
    assert (found.returncode, found.stdout, found.stderr) == expected


REFUSED = {
    # execution
    "--execution=sparse --method=dense": ["--method=dense has every connection", "use --execution=masked"],
    "--execution=sparse --method=set,top_kast": ["--method=top_kast looks at the whole matrix", "--method=top_kast)"],
    "--execution=sparse --initial_topology=snip": [
        "it can be random or fan_in or radix or cayley or from_run:RUN or file:PATH", "use --execution=masked",
    ],
    "--execution=dense": ["--execution", "masked, sparse"],
    "--hidden_sizes=60000,60000": ["dense_1 has 3,600,000,000 positions", "use --execution=sparse"],
    # names: the known ones and the nearest
    "--activation=relo": ["'relo'", "'relu'", "softplus"],
    "--activation=relu:tanhh": ["'tanhh'", "'tanh'"],
    "--method=set,rigle": ["'rigle'", "'rigl'", "static"],
    "--dataset=mnits": ["'mnits'", "'mnist'", "digits", ".npz or .csv"],
    "--dataset=emnist": ["'emnist'", "mean 'emnist/balanced'"],
    "--dataset=emnist/letters": ["'emnist/letters'", "emnist/digits"],
    "--model=mpl": ["'mpl'", "'mlp'"],
    "--optimizer=sdg": ["'sdg'", "'sgd'", "adamw"],
    "--allocation=ekr": ["'ekr'", "'erk'", "uniform"],
    # levels of sparsity
    "--sparsity=1": ["--sparsity", "[0, 1)"],
    "--sparsity=0.9,1.5": ["--sparsity", "1.5", "[0, 1)"],
    "--sparsity=-0.1": ["--sparsity", "-0.1", "[0, 1)"],
    "--epsilon=0": ["--epsilon", "(0, ∞)"],
    "--sparsity=0.9 --epsilon=5": ["--sparsity", "--epsilon", "one of them"],
    "--sparsity=0.9999999": ["0.9999999", "without connections", "maximum"],
    "--sparsity=0.5,0.99999": ["0.99999", "output", "maximum"],
    "--sparsity=0.9999 --allocation=uniform": ["output", "maximum"],
    "--epsilon=5 --allocation=uniform": ["--epsilon", "uniform", "--sparsity"],
    "--epsilon=1e-9": ["1e-09", "output", "least"],
    "--sparsity=0.9 --layer_sparsity=dense_0=0.9": ["--sparsity", "--layer_sparsity", "one of them"],
    "--epsilon=5 --layer_sparsity=dense_0=0.9": ["--epsilon", "--layer_sparsity", "one of them"],
    "--method=granet --allocation=uniform_dense_first --hidden_sizes=500 --sparsity=0.1": [
        "--initial_sparsity=0.5", "maximum",
    ],
    "--method=gmp --initial_sparsity=0.95": ["--initial_sparsity=0.95", "gmp", "dense_0", "1,045", "2,091", "lower"],
    "--method=lottery_ticket --epsilon=300 --initial_sparsity=0.1": ["--initial_sparsity=0.1", "dense_1", "30,000"],
    f"--method=gmp --initial_sparsity=0.6 {MAP}": ["--initial_sparsity=0.6", "output", "400", "500"],
    "--method=gmp --structure=2:4 --initial_sparsity=0.75": ["--initial_sparsity=0.75", "dense_0", "4,800", "9,600"],
    "--method=gmp --density_schedule=cyclic": ["--density_schedule=cyclic", "gmp", "--method=ac_dc"],
    "--allocation=global": ["--allocation=global", "--initial_topology=random", "snip"],
    "--allocation=global --initial_topology=expander": ["--initial_topology=expander", "grasp or synflow"],
    "--allocation=global --initial_topology=snip --structure=fan_in": ["--structure=fan_in", "another allocation"],
    "--allocation=global --initial_topology=snip --method=mest_soft": ["--method=mest_soft", "another allocation"],
    # layer by layer
    "--layer_sparsity=dense_0=0.9": ["dense_1, output", "dense_1=0"],
    "--layer_sparsity=dense_0=0.9:dense_3=0.9": ["'dense_3'", "dense_0, dense_1, output"],
    "--layer_sparsity=dense_0=0.9:dense_0=0.8": ["dense_0 twice"],
    "--layer_sparsity=dense_0=1": ["dense_0=1", "[0, 1)"],
    "--layer_sparsity=dense_0=-0.5": ["dense_0=-0.5", "[0, 1)"],
    "--layer_sparsity=dense_0=nan": ["dense_0=nan", "[0, 1)"],
    "--layer_sparsity=dense_0=much": ["'dense_0=much'", "layer=number", "dense_0=0.98"],
    "--layer_sparsity=dense_0,dense_1": ["'dense_0,dense_1'", "layer=number"],
    "--layer_sparsity=dense_0=0.99999:dense_1=0.9:output=0": ["dense_0", "maximum is 0.99994"],
    # structures
    "--structure=fanin": ["--structure", "'fanin'", "fan_in"],
    "--structure=4:2": ["--structure", "'4:2'", "0 < N < M", "2:4"],
    "--structure=0:4": ["'0:4'", "0 < N < M"],
    "--structure=2:": ["'2:'", "2:4"],
    "--structure=0x4": ["'0x4'", "4x4"],
    "--structure=3:7": ["--structure=3:7", "64 inputs of dense_0", "--dense_layers=^dense_0$"],
    "--structure=2:4 --hidden_sizes=30": ["--structure=2:4", "30 inputs of output", "--hidden_sizes"],
    "--structure=4x4 --method=rigl": ["--structure=4x4", "100x10 of output", "--dense_layers=^output$"],
    "--structure=fan_in --sparsity=0.999": ["--structure=fan_in", "300", "dense_0", "21", "less sparse"],
    "--initial_topology=fan_in --sparsity=0.99": ["--initial_topology=fan_in", "300", "dense_0", "209"],
    "--initial_topology=fan_out --sparsity=0.999": ["--initial_topology=fan_out", "64", "dense_0", "21"],
    "--structure=fan_in --scope=global": ["--structure=fan_in", "--scope=global", "--scope=layer"],
    "--structure=2:4 --method=rigl,snfs": ["--structure=2:4", "--scope=momentum", "--scope=layer"],
    "--structure=fan_in --initial_topology=expander": ["--initial_topology=expander", "--structure=fan_in", "snip"],
    "--structure=2:4 --initial_topology=fan_in": ["--initial_topology=fan_in", "--structure=2:4", "random"],
    "--structure=5x5 --method=deepr": ["deepr", "sign", "--method=set_magnitude"],
    "--structure=fan_in --method=accset": ["--method=accset", "--structure=none"],
    "--structure=2:4 --method=mest_soft": ["--method=mest_soft", "--drop_fraction=0.3", "--structure=2:4", "larger"],
    "--structure=5x5 --method=rigl --importance_pruning=0.1": ["--importance_pruning=0.1", "5x5", "5x1"],
    "--method=gmp --scope=momentum": ["--scope=momentum", "--method=gmp", "--scope=layer"],
    "--method=top_kast --scope=survivors": ["--scope=survivors", "--method=top_kast", "--scope=layer"],
    "--method=mest_soft --scope=gradient": ["--scope=gradient", "--method=mest_soft", "--scope=layer"],
    "--method=chts --structure=4x4": ["--drop_score=sampled_magnitude", "--structure=4x4", "magnitude"],
    "--method=set,srigl --sparsity=0.9,0.999 --dense_layers=output": ["--sparsity=0.999", "--method=srigl", "at "],
    "--method=srigl --structure=none": ["--ablation=0.3", "--structure=fan_in", "--ablation=0"],
    "--method=srigl --structure=2:4": ["--ablation=0.3", "--structure=fan_in", "--ablation=0"],
    "--initial_topology=correlation --dense_layers=dense_0 --layer_sparsity=dense_1=0.9:output=0": [
        "--initial_topology=correlation", "dense_0", "random",
    ],
    "--allocation=uniform_dense_first --dense_layers=dense_0": ["uniform_dense_first", "dense_0", "uniform"],
    # nan, infinity and what becomes infinite
    "--sparsity=nan": ["--sparsity", "nan"],
    "--learning_rate=0.1,inf": ["--learning_rate", "inf"],
    "--weight_decay=1e999": ["--weight_decay", "1e999"],
    "--checkpoint_seconds=nan": ["--checkpoint_seconds", "nan"],
    "--interval=nanepoch": ["--interval", "nan"],
    "--interval=1e308epoch": ["--interval"],
    # layers
    "--activation=relu:tanh:elu": ["--activation=relu:tanh:elu", "3", "--hidden_sizes=300,100", "2"],
    "--activation=relu:tanh --hidden_sizes=300,100;300": ["--activation=relu:tanh", "--hidden_sizes=300 has 1"],
    "--activation=relu:": ["--activation", "''", "relu"],
    "--hidden_sizes=": ["--hidden_sizes"],
    "--hidden_sizes=300,": ["--hidden_sizes"],
    "--hidden_sizes=300,100;": ["--hidden_sizes"],
    "--hidden_sizes=0": ["--hidden_sizes", "[1, ∞)"],
    "--hidden_sizes=300,-5": ["--hidden_sizes", "-5", "[1, ∞)"],
    "--hidden_sizes=300:100": ["--hidden_sizes", "300:100"],
    "--dense_layers=nothing": ["--dense_layers", "dense_0, dense_1, output"],
    "--dense_layers=.": ["--dense_layers", "--method=dense"],
    "--dense_layers=[": ["--dense_layers", "regular expression"],
    # time
    "--interval=0": ["--interval", "[1, ∞)"],
    "--interval=0epoch": ["--interval", "(0, ∞)"],
    "--interval=1.5": ["--interval", "steps", "0.5epoch"],
    "--interval=soon": ["--interval", "'soon'", "0.5epoch"],
    "--interval=100000": ["--interval=100000", "200 steps"],
    "--interval=10,21epoch": ["--interval=21epoch", "200 steps"],
    "--interval=100 --stop_fraction=0.5": ["--interval=100", "200 steps", "stop at step 100", "--interval=99"],
    "--interval=1 --method=set,rigl": ["--interval=1", "rigl", "--interval=2", "--update_step=take"],
    "--method=set,deepr --update_step=skip": ["--interval=1", "deepr", "--update_step=take"],
    "--method=lottery_ticket --levels=200": ["--levels=200", "--rewind_to=0", "199 is the most"],
    "--method=lr_rewinding --epochs=1": ["--levels=11", "10", "9 is the most"],
    "--method=lottery_ticket --rewind_to=20epoch": ["--rewind_to=20epoch", "step 200 of 200", "further"],
    "--epochs=-1": ["--epochs", "[0, ∞)"],
    "--epochs=1e3": ["--epochs", "'1e3'", "integer"],
    "--num_seeds=0": ["--num_seeds", "[1, 65536]"],
    "--first_seed=4294967295 --num_seeds=2": ["--first_seed=4294967295", "2 seeds", "32 bits"],
    "--lr_schedule=step --lr_decay_at=0.5:0.5": ["--lr_decay_at"],
    "--lr_schedule=step --lr_decay_at=0.75:0.5": ["--lr_decay_at"],
    # sizes
    "--batch_size=0": ["--batch_size", "[1, ∞)"],
    "--batch_size=32,1295": ["--batch_size=1295", "1294 training examples"],
    "--train_size=100 --validation_fraction=0.5 --batch_size=51": ["--batch_size=51", "50 training examples"],
    "--validation_fraction=1": ["--validation_fraction", "[0, 1)"],
    "--validation_fraction=0.9999": ["validation_fraction=0.9999", "0 of 1,438", "10 classes", "at most 1,428"],
    "--train_size=5": ["--train_size=5", "--validation_fraction=0.1", "10 classes", "--train_size=11 is the least"],
    "--train_size=1439": ["train_size", "1439", "1,438"],
    "--test_size=360": ["test_size", "360", "359"],
    # what training offers
    "--augmentation=crop_flop": ["'crop_flop'", "'crop_flip'", "dubowski"],
    "--augmentation=crop_flip --dataset=synthetic": [
        "--augmentation=crop_flip", "--dataset=synthetic", "64", "height × width × channels",
    ],
    "--augmentation=none,flip --dataset=../given/nothing.npz --batch_size=5": [
        "--augmentation=flip", "nothing.npz", "shape 2",
    ],
    "--warmup_epochs=20": ["--warmup_epochs=20", "20 epochs", "for less"],
    "--method=set,lottery_ticket --levels=4 --warmup_epochs=4": ["--warmup_epochs=4", "lottery_ticket", "4 epochs"],
    # what nothing in the grid uses
    "--method=dense --sparsity=0.5": ["--sparsity", "--method=dense"],
    "--method=dense,static --drop_fraction=0.1": ["--drop_fraction", "--method=dense, static"],
    "--optimizer=sgd --momentum=0.5": ["--momentum", "--optimizer=sgd"],
    "--lr_decay_factor=0.5": ["--lr_decay_factor", "--lr_schedule=cosine"],
    "--activation=relu,relu:tanh --all_relu_alpha=0.5": ["--all_relu_alpha", "--activation=relu, relu:tanh"],
    "--method=static,gmp --drop_fraction=0.1": ["--drop_fraction", "--method=static, gmp", "set_magnitude", "others"],
    "--method=rigl --ablation=0.1": ["--ablation", "--method=rigl", "srigl"],
    "--method=lottery_ticket --interval=10": ["--interval", "--method=lottery_ticket"],
    "--rewiring=0.2": ["--rewiring", "--initial_topology=auto", "small_world"],
    "--temperature=0.1": ["--temperature", "--drop_score=auto", "--grow_score=auto", "sampled_path3"],
    "--importance_from=0.1": ["--importance_from", "--importance_pruning=auto"],
    "--structure=2:4 --importance_from=0.1": ["--importance_from", "--importance_pruning=auto does not use it"],
    "--method=gmp --drop_schedule=inverse_power --drop_power=2": ["--drop_schedule has no effect", "--method=gmp"],
    "--structure=2:4 --sparsity=0.9": ["--sparsity", "--structure=2:4", "how many connections"],
    "--structure=2:4 --layer_sparsity=dense_0=0.9": ["--layer_sparsity", "--structure=2:4", "how many connections"],
    f"--allocation=erk {MAP}": ["--allocation", "--layer_sparsity=dense_0=0.9", "how many connections"],
    "--exact_seeds --layout=vmap": ["--exact_seeds", "--layout=map"],
    "--shard=0/3": ["--shard", "0/3 is no share", "1/3 to 3/3"],
    "--shard=4/3": ["--shard", "4/3 is no share"],
    "--shard=2": ["--shard", "'2'", "2/8 is the second of eight"],
    "--tracker=comet": ["'comet'", "none, tensorboard, wandb"],
    # lists
    "--num_seeds=1,2": ["--num_seeds", "one value"],
    "--layout=map,vmap": ["--layout", "one value"],
    "--resume=true,false": ["--resume", "one value"],
    "--method=set,set": ["--method", "twice"],
    "--sparsity=0.5,0.50": ["--sparsity", "twice"],
    "--hidden_sizes=30,10;30,10": ["--hidden_sizes", "twice"],
    "--method set rigl": ["'rigl'", "--name=value"],
    # the command line itself
    "--sparsty=0.5": ["'sparsty'", "sparsity"],
    "--nosparsity": ["'nosparsity'"],
    "--sparsity": ["--sparsity", "Missing value"],
    "0.5": ["'0.5'", "--name=value"],
    "--resume=maybe": ["--resume", "'maybe'"],
    "--noresume=maybe": ["resume", "maybe"],
    "--flagfile": ["--flagfile"],
    "--flagfile=": ["flagfile"],
    "--flagfile=gone.flags": ["flagfile", "'gone.flags'", "No such file"],
    "--flagfile=../given": ["flagfile", "'../given'", "directory"],
    "--flagfile=../given/nested.flags": ["flagfile", "'gone.flags'"],
    "--flagfile=../given/wrong.flags": ["--method", "'sett'", "'set'"],
    "--flagfile=../given/dashless.flags": ["'sparsity=0.5'", "--name=value"],
    "--flagfile=../given/binary.flags": ["flagfile", "binary.flags"],
    "--flagfile=../given/unused.flags --num_seeds=2": ["--drop_fraction has no effect", "--method=dense"],
    "--flagfile=../given/set.flags --method=dense --epsilon=8": ["--epsilon has no effect", "--method=dense"],
    # folders
    "--workdir=": ["--workdir"],
    "--workdir=../given/file": ["workdir", "given/file"],
    "--workdir=../given/file/below": ["workdir", "given/file/below"],
    "--workdir=~nosuchuser/results": ["workdir", "~nosuchuser"],
    f"--workdir={LONG}": ["workdir", LONG],
    "--workdir=../given/broken": ["broken/config.json", "another --workdir"],
    "--workdir=../given/foreign": ["foreign/config.json", "another --workdir"],
    "--data_dir=": ["--data_dir"],
    "--data_dir=~nosuchuser/data": ["data_dir", "~nosuchuser"],
    "--dataset=mnist": ["tensorflow_datasets/mnist", "launch/prepare_data.py --dataset=mnist --data_dir="],
    "--dataset=mnist --data_dir=nowhere": ["nowhere/mnist", "prepare_data.py --dataset=mnist --data_dir=nowhere"],
    "--dataset=mnist --data_dir=../given": [
        "given/mnist/3.0.1", "No such file", "remove that folder", "launch/prepare_data.py --dataset=mnist",
    ],
    "--dataset=emnist/balanced --data_dir=../given": ["no version of emnist/balanced in ../given/emnist/balanced"],
    f"--dataset=mnist --data_dir={LONG}": ["--data_dir", LONG],
    "--dataset=madelon --data_dir=nowhere": ["nowhere/madelon.npz", "numpy.savez", "x_train"],
    # data sets
    "--dataset=digits,gone.npz": ["gone.npz", "numpy.savez", "x_train"],
    f"--dataset={LONG}.npz": [LONG],
    "--dataset=~nosuchuser/a.npz": ["~nosuchuser"],
    "--dataset=../given/folder.npz": ["folder.npz is a folder", "numpy.savez"],
    "--dataset=../given/file.npz": ["file.npz is no npz archive", "numpy.savez"],
    "--dataset=../given/truncated.npz": ["truncated.npz is no npz archive, or not the whole", "numpy.savez"],
    "--dataset=../given/two_scales.npz": ["two_scales.npz", "x_train is uint8", "x_test float64"],
    "--dataset=../given/pickled.npz": ["pickled.npz"],
    "--dataset=../given/incomplete.npz": ["incomplete.npz", "lacks x_test, y_test"],
    "--dataset=../given/nan.npz": ["nan.npz", "x_train", "NaN"],
    "--dataset=../given/infinite.npz": ["infinite.npz", "x_test", "infinity"],
    "--dataset=../given/empty.npz": ["empty.npz", "x_test", "empty"],
    "--dataset=../given/lengths.npz": ["lengths.npz", "6", "5"],
    "--dataset=../given/shapes.npz": ["shapes.npz", "(2,)", "(3,)"],
    "--dataset=../given/flat.npz": ["flat.npz", "x_train"],
    "--dataset=../given/gap.npz": ["gap.npz", "[0, 2]", "gap"],
    "--dataset=../given/one_class.npz": ["one_class.npz", "y_train"],
    "--dataset=../given/float_labels.npz": ["float_labels.npz", "y_train", "integers"],
    "--dataset=../given/negative.npz": ["negative.npz", "y_test", "-1"],
    "--dataset=../given/stranger.npz": ["stranger.npz", "y_test", "7"],
    "--dataset=../given/nothing.npz --validation_fraction=0.01": ["0.01 of 6 training", "nothing.npz", "use 0"],
    "--dataset=../given/nothing.npz --validation_fraction=0.99": ["leave 0 of 6 training", "nothing.npz", "2 classes"],
    "--dataset=../given/nothing.npz --test_size=3": ["3", "2 test examples of ../given/nothing.npz"],
    "--dataset=gone.csv": ["no data set at gone.csv", "numbers and a label"],
    "--dataset=../given/folder.csv": ["../given/folder.csv is a folder"],
    "--dataset=../given/utf16.csv": ["utf16.csv", "cannot be read as text"],
    "--dataset=../given/ragged.csv": ["ragged.csv line 14", "2 columns", "3"],
    "--dataset=../given/hole.csv": ["hole.csv line 14, column 2 (b) is empty"],
    "--dataset=../given/text.csv": ["text.csv line 14, column 2 (b)", "'x' is no number"],
    "--dataset=../given/nan.csv": ["nan.csv line 14, column 1 (a)", "not finite"],
    "--dataset=../given/no_label.csv": ["no_label.csv line 14, column 3 (label)", "empty"],
    "--dataset=../given/one_class.csv": ["one_class.csv column 3", "p", "two classes"],
    "--dataset=../given/alone.csv": ["alone.csv line 14, column 3 (label)", "r", "a class needs two"],
    "--dataset=../given/empty.csv": ["empty.csv line 1", "expected numbers and a label"],
    "--dataset=../given/header.csv": ["header.csv has a header and no examples"],
    "--dataset=../given/semicolons.csv": ["semicolons.csv line 1", "commas", "'1;2;p'"],
    "--dataset=../given/both.csv": ["both.csv line 1", "'y' is also a label"],
    "--dataset=../given/nothing.csv": ["--batch_size=128", "9 training examples"],
    **{
        f"--dataset=emnist/balanced --data_dir=../given/{name}": [
            f"given/{name}/emnist/balanced/3.1.0 are damaged (dataset_info.json: ",
            "launch/prepare_data.py --dataset=emnist/balanced",
        ]
        for name in METADATA
    },
    "--dataset=../given/nothing.npz": ["--batch_size=128", "5 training examples"],
    # networks
    "--model=lenet5": ["--model=lenet5", "16 × 16", "digits has shape (8, 8, 1)"],
    "--model=vgg16 --dataset=synthetic": ["--model=vgg16", "images", "(64,)"],
    "--model=lstm --dataset=synthetic": ["--model=lstm", "sequences", "(64,)"],
    "--model=transformer --patch_size=3": ["--patch_size=3", "(8, 8, 1)"],
    "--model=transformer --heads=5": ["--heads=5", "64 features"],
    "--model=wide_resnet --depth=20": ["--depth=20", "6 n + 4"],
    "--model=vgg11 --activation=relu:tanh": ["relu:tanh names 2", "--model=vgg11 has 8"],
    "--model=vgg11 --hidden_sizes=30": ["--hidden_sizes has no effect", "--model=vgg11", "mlp"],
    "--depth=10": ["--depth has no effect", "--model=mlp", "wide_resnet, transformer"],
    "--gate_activation=hard_sigmoid": ["--gate_activation has no effect", "lstm"],
    "--method=dense --init_fan=active": ["--init_fan has no effect", "--method=dense"],
    "--model=gru --initial_topology=synflow": ["synflow", "--model=gru", "grasp"],
    "--model=lenet5_alford --initial_topology=synflow": ["synflow", "--model=lenet5_alford"],
    "--model=wide_resnet --depth=100 --initial_topology=synflow": ["synflow", "float32", "--depth"],
    "--model=vgg11 --initial_topology=correlation": ["correlation", "conv_0 of --model=vgg11", "random"],
    "--model=lstm --allocation=uniform_dense_first": ["uniform_dense_first", "a gate", "^lstm_0/input_"],
    "--model=resnet18 --importance_pruning=0.2": ["--importance_pruning=0.2", "--model=resnet18"],
}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line.replace(LONG, "LONG"))
def test_refused_in_one_line_that_says_why(world, line):
    message = world.refusal(line)
    assert [word for word in REFUSED[line] if word not in message] == [], message


RECORDS = {  # what happens to the records of an image set -> words of the message
    "truncated": ["cannot decode", "train", "mnist-train.array_record-00000-of-00001", "remove that folder"],
    "of another set": ["holds label 5, outside 0..2"],
    "of another shape": ["(6, 6, 1)", "not (8, 8, 1)"],
}


@pytest.mark.parametrize("damage", RECORDS)
def test_damaged_images_are_refused_before_anything_is_written(world, damage):
    x, y = np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3
    folder = write_set(world.root / "data", "mnist", "3.0.1", 3, {"train": (x, y), "test": (x, y)})
    records = folder / "mnist-train.array_record-00000-of-00001"
    if damage == "truncated":
        records.write_bytes(records.read_bytes()[:-40])
    else:
        records.unlink()
        write_records(records, *((x[:, :6, :6], y) if damage == "of another shape" else (x, y + 5)))
    message = world.refusal("--dataset=digits,mnist --data_dir=../data --batch_size=4")
    assert [word for word in RECORDS[damage] if word not in message] == [], message


# --- mask files ------------------------------------------------------------------------------------

SHAPES = {"dense_0/kernel": (64, 16), "dense_1/kernel": (16, 12), "output/kernel": (12, 10)}
THIRD = {name: np.arange(rows * columns).reshape(rows, columns) % 3 == 0 for name, (rows, columns) in SHAPES.items()}
FAN_IN = {name: np.tile(np.arange(rows)[:, None] < 4, (1, columns)) for name, (rows, columns) in SHAPES.items()}
NARROW = "--hidden_sizes=16,12 --initial_topology=file:m.npz"
REFUSED_MASKS = {  # what is wrong -> the arrays, or the content of the file; other flags; words of the message
    "absent": (None, "", ["mask file m.npz", "No such file", "masks.npz of a run"]),
    "text": (b"masks", "", ["m.npz is no mask file", "masks.npz of a run"]),
    "no arrays": ({}, "", ["m.npz", "no array"]),
    "numbers": (THIRD | {"output/kernel": np.ones((12, 10))}, "", ["m.npz", "output/kernel is float64, not bool"]),
    "0 and 1": ({name: 1 * mask for name, mask in THIRD.items()}, "", ["is int64, not bool", "one bool array a layer"]),
    "names": (
        {name.removesuffix("/kernel"): mask for name, mask in THIRD.items()}, "",
        ["m.npz has masks of dense_0, dense_1, output", "kernels dense_0/kernel, dense_1/kernel, output/kernel"],
    ),
    "a layer too few": ({"output/kernel": THIRD["output/kernel"]}, "", ["m.npz has masks of output/kernel"]),
    "a layer too many": (THIRD, "--dense_layers=output", ["m.npz", "kernels dense_0/kernel, dense_1/kernel:"]),
    "shapes": (
        THIRD | {"dense_1/kernel": THIRD["dense_1/kernel"].T}, "",
        ["m.npz", "dense_1/kernel is 12×16", "16×12 in the network", "--hidden_sizes"],
    ),
    "an empty layer": (
        THIRD | {"dense_1/kernel": np.zeros((16, 12), bool)}, "", ["m.npz", "dense_1/kernel has no connection"]
    ),
    "structure": (THIRD, "--structure=fan_in", ["m.npz", "dense_0/kernel does not keep --structure=fan_in", "=none"]),
    "other N:M": (FAN_IN, "--structure=1:4", ["m.npz", "dense_0/kernel does not keep --structure=1:4"]),
    "neurons cut off": (
        FAN_IN | {"dense_1/kernel": FAN_IN["dense_1/kernel"] & (np.arange(12) > 2)}, "--structure=fan_in",
        ["m.npz", "dense_1/kernel has neurons without", "--method=set", "--method=static"],
    ),
    "schedule": (THIRD, "--method=set,gmp", ["--initial_topology=file:m.npz", "--method=gmp", "keeps their number"]),
    "sparsity": (THIRD, "--sparsity=0.5", ["--sparsity", "file:m.npz says how many connections there are"]),
    "no method": (THIRD, "--method=dense", ["--initial_topology", "--method=dense", "static"]),
}  # fmt: skip


def write_masks(path, content):
    if isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize("wrong", REFUSED_MASKS)
def test_a_mask_file_that_does_not_fit_is_refused(world, wrong):
    content, flags, words = REFUSED_MASKS[wrong]
    write_masks(world.here / "m.npz", content)
    message = world.refusal(f"{NARROW} {flags}")
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("path", ["", " ", "~nosuchuser/m.npz", LONG])
def test_a_mask_file_that_cannot_be_one(world, path):
    assert "--initial_topology" in world.refusal(f"'--initial_topology=file:{path}'")


def test_a_path_without_its_file_prefix_is_told_of_it(world):
    assert "file:PATH" in world.refusal("--initial_topology=m.npz")


# --- the proof can fail ----------------------------------------------------------------------------


GOOD_LINES = [
    "", "--dataset=../given/nothing.npz --batch_size=5", "--dataset=../given/nothing.csv --batch_size=5",
    "--dataset=two_spirals,separable", "--dataset=madelon_like --normalization=channel_zscore",
    "--epsilon=1e300", f"--method=gmp,granet,ac_dc {MAP}",
    "--method=granet --allocation=uniform_dense_first --sparsity=0.3", "--method=lottery_ticket --levels=199",
    "--augmentation=none,dubowski,alford --warmup_epochs=19.9 --label_smoothing=0.1 --gradient_clip=1 --ema=0.99",
    "--augmentation=none --dataset=synthetic", "--method=lottery_ticket --levels=4 --warmup_epochs=3.9",
    "--structure=fan_in --initial_topology=fan_in", "--method=accset --initial_topology=fan_in", NARROW,
    f"{NARROW} --structure=fan_in --method=static,rigl,mest",
]  # fmt: skip


@pytest.mark.parametrize("line", GOOD_LINES)
def test_good_input_goes_on_to_jax_and_has_written(world, line):
    write_masks(world.here / "m.npz", FAN_IN)
    assert world.train(line).returncode == TOUCHED_JAX
    assert list(world.here.glob("results/*/config.json"))


@pytest.mark.parametrize(("line", "unused"), [
    ("set.flags --method=dense", "drop_fraction, epsilon"), ("set.flags --method dense", "drop_fraction, epsilon"),
    ("unused.flags --norelu_logits", "drop_fraction"), ("set.flags --noresume", None),
])  # fmt: skip
def test_what_a_flagfile_has_beside_the_command_line_need_not_be_used(world, line, unused):
    found = world.train(f"--flagfile ../given/{line}")
    assert found.returncode == TOUCHED_JAX
    assert ("the flagfile" in found.stderr) == bool(unused)
    assert not unused or f"note: nothing uses what the flagfile says of {unused}\n" in found.stderr


# --- every setting ---------------------------------------------------------------------------------

READ = """
import json, sys
from absl.testing import flagsaver
from sparse_jax import config, errors, flags

flags.define(config.RunConfig, config.StudyConfig)

def refusal(argument):
    with flagsaver.flagsaver():
        try:
            flags.read_grid(["train.py", argument])
        except errors.UserError as error:
            return str(error)

print(json.dumps({argument: refusal(argument) for argument in json.load(sys.stdin)}))
"""


def outside(bounds):
    low, high = (float(end) for end in bounds[1:-1].split(","))
    below = low if bounds[0] == "(" else low - 1
    above = high if bounds[-1] == ")" else high + 1
    return [f"{end:g}" if end % 1 or math.isinf(end) else str(int(end)) for end in (below, above)]


def wrong_values(field):
    """Texts that the flag of a setting must refuse, each with a word of the reason."""
    kind, known = field.metadata["kind"], field.metadata.get("choices", ())
    yield from ((name + "x", repr(name)) for name in known[:1])  # the nearest
    yield from (("no such name", name) for name in known)
    if "bounds" in field.metadata:
        reason = "outside" if kind == "float" else ""
        yield from ((text, reason) for text in ("nan", *outside(field.metadata["bounds"])))
        yield "one", "'one'"
    if kind != "text":
        yield from [("", "''"), (" ", "''")]
    if kind not in ("text", "path") and not field.metadata.get("grid"):
        yield "auto,auto", "one value"
    if field.metadata.get("auto"):
        yield from [("Auto", ""), ("auto:auto", "")]


SETTINGS = settings(RunConfig) | settings(StudyConfig)


def test_every_setting_refuses_what_it_cannot_mean(tmp_path, no_jax):
    cases = [(f"--{name}={text}", name, word) for name, field in SETTINGS.items() for text, word in wrong_values(field)]
    asked = json.dumps([case for case, *_ in cases])
    refusals = json.loads(python("-c", READ, input=asked, cwd=tmp_path, env=environment(tmp_path, no_jax)).stdout)
    assert len(refusals) > 4 * len(SETTINGS)
    for case, name, word in cases:
        message = refusals[case]
        assert message is not None, f"{case} is accepted"
        assert message.startswith(f"--{name}: "), case
        assert word in message, case


# --- the remedy works ------------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", ["uniform", "erdos_renyi", "erk"])
@pytest.mark.parametrize("hidden", ["300,100", "5", "1000,10,1000"])
def test_the_largest_sparsity_named_is_accepted(world, allocation, hidden):
    network = f"--hidden_sizes={hidden} --allocation={allocation}"
    maximum = re.search(r"the maximum is (\S+)", world.refusal(f"{network} --sparsity=0.999999"))[1]
    assert world.train(f"{network} --sparsity={maximum} --dry_run").returncode == 0


@pytest.mark.parametrize("allocation", ["erdos_renyi", "erk"])
def test_the_least_epsilon_named_is_accepted(world, allocation):
    least = re.search(r"the least is (\S+)", world.refusal(f"--allocation={allocation} --epsilon=1e-6"))[1]
    assert world.train(f"--allocation={allocation} --epsilon={least} --dry_run").returncode == 0
    assert world.refusal(f"--allocation={allocation} --epsilon={0.99 * float(least)}")


# --- a workdir in use ------------------------------------------------------------------------------


def test_a_used_workdir_is_refused_to_who_does_not_resume(world):
    assert world.train("--workdir=study").returncode == TOUCHED_JAX
    message = world.refusal("--workdir=study --noresume")
    assert all(word in message for word in ("already holds a study", "another --workdir", "--noresume")), message


@pytest.mark.parametrize(
    ("flag", "new"),
    [("--sparsity=0.8", 1), ("--batch_size=64,128", 1), ("--hidden_sizes=300", 1), ("--num_seeds=3", 2)],
)
def test_a_used_workdir_grows(world, flag, new):
    assert world.train("--workdir=study").returncode == TOUCHED_JAX
    grown = world.train(f"--workdir=study {flag}")
    assert grown.returncode == TOUCHED_JAX
    assert f"note: the workdir has 1 runs; {new} of the " in grown.stderr
    assert len(json.loads((world.here / "study" / "config.json").read_text())["runs"]) == 1 + new


def test_a_used_workdir_continues_with_settings_that_affect_no_result(world):
    assert world.train("--workdir=study --noresume").returncode == TOUCHED_JAX
    assert world.train("--workdir=study --checkpoint_seconds=1 --cpu_devices=1").returncode == TOUCHED_JAX


def test_a_used_workdir_keeps_its_masks(world):
    """Whatever lies under the path: the masks count, as they were, and not the file."""
    study, other = f"{NARROW} --workdir={world.root / 'study'}", world.root / "other"
    other.mkdir()
    write_masks(world.here / "m.npz", THIRD)
    assert world.train(study).returncode == TOUCHED_JAX
    write_masks(world.here / "m.npz", FAN_IN)
    write_masks(other / "m.npz", FAN_IN)
    for folder in (world.here, other):
        message = world.refusal(study, folder)
        words = ["file:m.npz is not what", str(world.root / "study"), "restore it", "another --workdir"]
        assert [word for word in words if word not in message] == [], message
    save_masks(world.here / "m.npz", THIRD)
    save_masks(other / "m.npz", THIRD)
    assert {world.train(study, folder).returncode for folder in (world.here, other)} == {TOUCHED_JAX}
    (other / "m.npz").unlink()
    assert "No such file" in world.refusal(study, other)
