"""Who keeps a training's state and hears how it goes: an attempt, or what stands for it in each of many processes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from mixbench.attempts import Attempt
from mixbench.endings import FencedError, OtherDataError, StoppedError

if TYPE_CHECKING:
    from mixbench.team import Team


class Keeper(Protocol):
    """What a training needs of an attempt.

    Attributes:
        rank: of the process, among those that train together.
    """

    rank: int

    @property
    def tell(self) -> Callable[[str], None]:
        """Says one sentence to the user."""
        ...

    def begin(self, content: str) -> None:
        """Say on which data the run is begun, see `mixbench.attempts.Attempt.begin`."""
        ...

    def log(self, **row: float | int | None) -> None:
        """Note what an epoch gave."""
        ...

    def due(self, *, epoch_over: bool) -> bool:
        """Whether to save now; asked by all processes at the same steps, and answered alike."""
        ...

    def gathered(self, own: bytes) -> list[bytes]:
        """What a checkpoint is to hold of each other process, in order, for the one that writes it."""
        ...

    def save(self, step: int, state: bytes) -> None:
        """Write a checkpoint, see `mixbench.attempts.Attempt.save`."""
        ...

    def saved(self) -> Iterator[bytes]:
        """States to go on from, the newest first."""
        ...

    def mean(self, losses: list[float]) -> list[float]:
        """The mean over all processes, of each."""
        ...


class Leading:
    """The attempt at a run of several processes, in the first: it is for all of them that it decides and saves."""

    rank = 0

    def __init__(self, attempt: Attempt, team: Team) -> None:
        self._attempt = attempt
        self._team = team
        self.number = attempt.number
        self.tell = attempt.tell
        self.log = attempt.log
        self.stand = attempt.stand
        self.finish = attempt.finish

    def begin(self, content: str) -> None:
        """Say on which data the run is begun, as `Attempt.begin`; and to the others, who must have the same."""
        self._attempt.begin(content)
        self._team.told(content)

    def due(self, *, epoch_over: bool) -> bool:
        """Whether all are to save now."""
        return self._team.decided(yes=self._attempt.due(epoch_over=epoch_over))

    def gathered(self, own: bytes) -> list[bytes]:
        """What is each other process's own."""
        return self._team.gathered(own)

    def save(self, step: int, state: bytes) -> None:
        """Write a checkpoint, as `Attempt.save`; where that is the end, it is the others' too."""
        try:
            self._attempt.save(step, state)
        except (StoppedError, FencedError) as error:
            self._team.told(str(error))
            raise
        self._team.told("")

    def saved(self) -> Iterator[bytes]:
        """The newest valid state, if there is any; for all."""
        state = next(self._attempt.saved(), None)
        self._team.told(state)
        yield from () if state is None else (state,)

    def mean(self, losses: Sequence[float]) -> list[float]:
        """Those of the batches, from those of all parts."""
        return self._team.mean(losses)


class Following:
    """What stands for the attempt in the other processes: it keeps nothing and tells nobody."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self.rank = team.rank

    def begin(self, content: str) -> None:
        """Make sure that the data are those of process 0.

        Raises:
            OtherDataError: they are not.
        """
        begun = self._team.told(None)
        if begun != content:
            raise OtherDataError(
                f"the data at hand on {socket.gethostname()} have the fingerprint {content}, but the run was begun on "
                f"{begun}; bring the same ones to every machine"
            )

    def tell(self, sentence: str) -> None:
        """Nothing: process 0 says it."""

    def log(self, **row: float | int | None) -> None:
        """Nothing: process 0 does."""

    def due(self, *, epoch_over: bool) -> bool:  # noqa: ARG002
        """What process 0 decides."""
        return self._team.decided(yes=False)

    def gathered(self, own: bytes) -> list[bytes]:
        """Nothing: process 0 has it now."""
        return self._team.gathered(own)

    def save(self, step: int, state: bytes) -> None:  # noqa: ARG002
        """Wait until process 0 has.

        Raises:
            StoppedError: that is the end.
        """
        end = self._team.told(None)
        if end:
            raise StoppedError(end)

    def saved(self) -> Iterator[bytes]:
        """What process 0 has found."""
        state = self._team.told(None)
        yield from () if state is None else (state,)

    def mean(self, losses: Sequence[float]) -> list[float]:
        """Those of the batches, from those of all parts."""
        return self._team.mean(losses)
