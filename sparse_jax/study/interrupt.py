"""The wish to stop: the first SIGTERM or SIGINT asks, a second one ends the process at once."""

import os
import signal

# EX_TEMPFAIL of sysexits.h: launchers such as SLURM or GNU parallel may be told to start it again.
INTERRUPTED = 75


class Interrupt:
    """Remembers that a signal came; the training loop looks between two pieces of work."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = True
