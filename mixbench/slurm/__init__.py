"""Sweeps on a SLURM cluster: what is handed to it, what is in flight there, and what runs in its jobs.

Three rules carry it: the results folder says what is done, the queue says only what is in flight, and every attempt has
a number that fences older ones.
"""


class UnknownError(Exception):
    """What the cluster does cannot be known now: nothing may be submitted on a guess."""


class LockedError(Exception):
    """Another launcher is submitting."""
