"""Randomness with names: what is drawn for one purpose never shifts what is drawn for another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class Streams:
    """The random streams of one run, each derived from the run's seed and its own name.

    ``init``, ``subset``, ``order`` and ``views`` are drawn again after a restart, from the same names and keys; ``mix``
    and torch's global generators (dropout, and mixers that ignore their generator) go on from the checkpoint.
    Making the streams seeds torch's global generators, so what ran before in the process does not matter.

    Args:
        seed: of the run.
        rank: the process among those that train the run together: ``mix`` and torch's global generators are its own,
            and all others the same in each.

    Attributes:
        rank: the process.
        mix: the generator that mixers draw from, on the CPU.
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        self._seed = seed
        self.rank = rank
        own = (rank,) if rank else ()
        self.mix = self.generator("mix", *own)
        torch.manual_seed(self._derive("torch", *own))

    def generator(self, name: str, *key: int) -> torch.Generator:
        """A fresh CPU generator, always the same for this seed, ``name`` and ``key`` (an epoch, say)."""
        return torch.Generator().manual_seed(self._derive(name, *key))

    @contextmanager
    def initialising(self) -> Iterator[None]:
        """Inside, torch's global CPU generator is the stream ``init``; afterwards it goes on where it was.

        A network built inside, on the CPU, has the same first weights on every device and for every method.
        """
        # Not torch.manual_seed: it would seed the CUDA generators too, which are not put back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._derive("init"))
            yield

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs: the states of ``mix`` and of torch's global generators (CUDA's: None where unused)."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        return {"mix": self.mix.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, on whichever device it was loaded. Without a CUDA device nothing draws from CUDA's."""
        self.mix.set_state(state["mix"].cpu())
        torch.set_rng_state(state["cpu"].cpu())
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"].cpu())

    def _derive(self, name: str, *key: int) -> int:
        said = "/".join(map(str, (self._seed, name, *key)))
        return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big")
