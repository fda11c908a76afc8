"""Programs that are started by the hundred, each in a process of its own, forked from one with the imports."""

import json
import select
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 300  # that a program may take
SERVER = """
import importlib, json, os, runpy, sys, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        for number, path in ((1, job["out"]), (2, job["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["env"])
        sys.argv, sys.path[0], status = job["argv"], os.path.dirname(job["argv"][0]), 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Served:
    """A process that runs programs, one at a time, as if each were started by itself."""

    def __init__(self, *imports: str, env: dict[str, str]) -> None:
        """Import these modules, with these environment variables. They may import jax, whose threads come later."""
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *imports], env=env | threads, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._answer() == "ready"

    def run(self, program: Path, *arguments: object, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
        """The program, ended."""
        argv = [str(program), *map(str, arguments)]
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            job = {"argv": argv, "cwd": str(cwd), "env": env, "out": str(out), "err": str(err)}
            print(json.dumps(job), file=self.process.stdin, flush=True)
            return subprocess.CompletedProcess(argv, int(self._answer()), out.read_text(), err.read_text())

    def _answer(self) -> str:
        ready, *_ = select.select([self.process.stdout], [], [], SECONDS)
        if not ready:
            self.process.kill()
            raise TimeoutError
        return self.process.stdout.readline().strip()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
