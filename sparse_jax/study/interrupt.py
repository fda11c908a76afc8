"""The wish to stop: the first SIGTERM or SIGINT asks, a second one ends the process at once."""

import os
import signal
import sys

# EX_TEMPFAIL of sysexits.h: launchers such as SLURM or GNU parallel may be told to start it again.
INTERRUPTED = 75

_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it


class Interrupt:
    """Remembers that a signal came; the training loop looks between two pieces of work."""

    def __init__(self) -> None:
        self.asked = False  # by a signal, or by another process of the same training
        self._signalled = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        if self._signalled:
            os.write(2, _SHOW_CURSOR if sys.stderr.isatty() else b"")
            os._exit(128 + number)
        self.asked = self._signalled = True
        os.write(2, b"\nstopping after this piece of work, with the state saved; again to stop at once\n")
