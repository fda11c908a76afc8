"""Interrupts for the loops of searches."""

import math


class Asking:
    """An interrupt that asks after so many looks."""

    def __init__(self, after=math.inf):
        self.left = after

    @property
    def asked(self):
        self.left -= 1
        return self.left < 0
