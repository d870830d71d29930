"""Sweeps on a SLURM cluster: what is handed to it, what is in flight there, and what runs in its jobs.

Three rules carry it: the results folder says what is done, the queue says only what is in flight, and every attempt has
a number that fences older ones.
"""
