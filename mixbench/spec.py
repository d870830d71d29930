"""What is trained: `Run`, one experiment as a value."""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, get_type_hints

from mixbench.fields import ABOUT, ABOVE, AT_LEAST, BELOW, CHOICES, LINKS, READ_BY
from mixbench.plain import cast_to
from mixbench.shares import LEAST

EMA = "ema"
"""What the moving average of a network is called: a run's ``ema`` adds ``ema_top1`` and so on to its metrics."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One experiment, completely specified. Equal runs are the same experiment and share one result.

    Whatever can change a number by more than rounding is a field here; how and where a run is computed is not
    (`mixbench.execution.Execution`). A default never changes: the id hashes only what differs from the defaults.
    """

    task: str = "classify"
    mini: bool = False  # a trial of a large experiment on a small machine, see `mixbench.recipes.Mini`
    method: str
    options: tuple[tuple[str, Any], ...] = ()  # the mixer's, sorted; those that equal their default are left out
    dataset: str
    content: str = ""  # own image folder: the fingerprint of its pictures
    image_size: int | None = None  # own image folder: the side, in pixels, that its pictures are brought to
    train_images: int | None = None  # None: all; else so many, drawn per seed, as many of each class
    test_images: int | None = None  # None: all; else the first so many
    model: str
    seed: int = 0
    augment: str = (
        "crop"  # crops after padding; or resized_crop, a random box of 8 to 100 % of the image, brought to its size
    )
    pad: int = 4  # crop: pixels added on each side before a crop of the original size is taken; 0: no crop
    pad_mode: str = "zeros"
    flip: bool = True
    mean: tuple[float, ...] = ()  # of the normalisation; (): the data set's own
    std: tuple[float, ...] = ()
    epochs: int
    batch_size: int = 128
    gpus: int = 1  # processes that train together, each on its part of every batch: it mixes and normalises that alone
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "step"  # or cosine; constant is step without milestones, and the same run
    milestones: tuple[int, ...] = ()  # step: epochs after which lr is multiplied by lr_drop
    lr_drop: float = 0.1
    lr_end: float = 0.0  # where a cosine ends
    warmup: int = 0  # epochs of linear warm-up
    criterion: str = "ce"  # cross-entropy; or bce, binary cross-entropy on the softmax
    ema: float = 0.0  # after each step an average keeps this share of its weights; 0: there is none, scored beside it
    precision: str = "float32"
    checkpoint: str = ""  # import: SHA-256 of the file, all 64 digits, to be set beside what its publisher may say
    teacher: Run | None = None
    policy: Run | None = None  # the search whose mixing module is used
    bank: Run | None = None  # the run that made the mixed images
    bank_images: int = 50_000  # bank: how many are made
    subjects: tuple[Run, ...] = ()  # time: whose mixers are measured side by side, see `timed`
    made_up: bool = False  # time: whether its pictures are, where a data set is not at hand; one of a side always is
    trials: int = 0  # time: exactly so many rounds; 0: until medians are known, or the time is up
    machine: str = ""  # time: what is measured, by the name that the system gives it

    def __post_init__(self) -> None:
        """Refuse a value that no experiment can have.

        Raises:
            ValueError: names the field, the value and what is allowed.
        """
        for name in _TYPES:
            if name not in (*LINKS, "subjects"):
                object.__setattr__(self, name, convert(name, getattr(self, name)))
        if self.checkpoint and self.task != "import":
            raise ValueError(f"checkpoint belongs to task: import, but task is {self.task}; change one of the two")
        self._forget_what_the_task_does_not_read()
        self._check_milestones()
        self._check_shares()
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true needs a momentum, but momentum is 0.0; change one of the two")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} numbers and std {len(self.std)}; give one of each per channel")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup is {self.warmup} of {self.epochs} epochs; it must be shorter than the training")
        self._forget_what_nothing_reads()

    def _check_milestones(self) -> None:
        if self.milestones and self.schedule != "step":
            raise ValueError(f"milestones belong to schedule: step, but schedule is {self.schedule}; leave one out")
        if any(one >= other for one, other in itertools.pairwise(self.milestones)):
            raise ValueError(f"milestones must ascend, not {list(self.milestones)}; sort them, each once")
        if self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"milestones go to {self.milestones[-1]}, but epochs is {self.epochs}: nothing is left to train behind "
                f"it; write milestones below {self.epochs}, or none: milestones: []"
            )

    def _check_shares(self) -> None:
        if self.batch_size % self.gpus:
            raise ValueError(
                f"batch_size is {self.batch_size}, which {self.gpus} GPUs cannot share evenly; write a multiple of gpus"
            )
        if self.gpus > 1 and self.batch_size < LEAST * self.gpus:
            raise ValueError(
                f"batch_size is {self.batch_size}, but each of {self.gpus} GPUs needs {LEAST} images or more; make it "
                f"larger, or gpus smaller"
            )

    def _forget_what_the_task_does_not_read(self) -> None:
        """Put fields back to their default that say how to train, where nothing is trained.

        Raises:
            ValueError: it says not what to import, or with what to mix.
        """
        if (self.task == "time") != bool(self.subjects):
            raise ValueError("task: time measures subjects, and only that does; a sweep says set: {task: time}")
        if self.task == "import" and not self.checkpoint:
            raise ValueError("task: import needs a checkpoint; write 'checkpoint:' and the path of its file")
        if self.task == "import" and self.method != "simple":
            raise ValueError(f"task: import mixes nothing, but its method is '{self.method}'; write method: simple")
        if self.task in READ_BY:
            read = READ_BY[self.task]
            self._put({field.name: field.default for field in fields(self) if field.name not in read | {"epochs"}})
        if self.task in ("import", "time"):
            self._put({"epochs": 1})

    def _forget_what_nothing_reads(self) -> None:
        """Put fields back to their default where others leave them without effect: equal experiments are equal runs."""
        unread: dict[str, Any] = {"schedule": "step"} if self.schedule == "constant" else {}
        unread |= {} if self.milestones else {"lr_drop": Run.lr_drop}
        unread |= {} if self.schedule == "cosine" else {"lr_end": Run.lr_end}
        unread |= {} if self.augment == "crop" else {"pad": Run.pad, "pad_mode": Run.pad_mode}
        unread |= {} if self.pad else {"pad_mode": Run.pad_mode}
        # A search minimises its own, and trains no network.
        unread |= {"criterion": Run.criterion, "ema": Run.ema} if self.task == "search" else {}
        unread |= {} if self.task == "bank" else {"bank_images": Run.bank_images}
        self._put(unread)

    def _put(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        """Of all fields; taken once, since a run is looked up a dozen times for a table."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(_VALUES(self))

    @cached_property
    def id(self) -> str:
        """Ten hex digits of SHA-256 over the canonical JSON of `to_dict`: the name of this experiment."""
        return hashlib.sha256(_CANONICAL.encode(self.to_dict()).encode()).hexdigest()[:10]

    @property
    def family(self) -> str:
        """What the folders of all runs of its method begin with; of trials, those of trials."""
        return f"mini-{self.method}" if self.mini else self.method

    @cached_property
    def folder(self) -> str:
        """Name of its folder below ``results/runs``: readable, and unique by the id at its end."""
        task = () if self.task == "classify" else (self.task,)
        dataset = self.dataset.removeprefix("image_folder:").strip("/").replace("/", "_")
        return "-".join((self.family, *task, dataset, self.model, f"s{self.seed}", self.id))

    @property
    def setting(self) -> str:
        """What is trained on what, ``dataset/model``: the column of a table."""
        return f"{self.dataset}/{self.model}"

    def links(self) -> Iterator[tuple[str, Run]]:
        """The runs that it asks, and how it comes to each: ``teacher``, or for a subject ``mixup -> teacher``."""
        yield from ((link, run) for link in LINKS if (run := getattr(self, link)) is not None)
        for subject in self.subjects:
            yield from ((f"{subject.method} -> {link}", run) for link, run in subject.links())

    def needs(self) -> tuple[Run, ...]:
        """The runs that must have finished first."""
        needs = tuple(run for run in _NEEDS(self) if run is not None)
        return tuple(dict.fromkeys(run for _, run in self.links())) if self.subjects else needs

    def reseeded(self, seed: int, links: Mapping[str, Run]) -> Run:
        """The same experiment under another seed, with other runs that it needs; an import is the same under each.

        No field but these changes, and what is right under one seed is so under every other: nothing is checked again,
        since a table has thousands of runs.
        """
        if self.task == "import":
            return self
        run = object.__new__(Run)
        vars(run).update(zip(_DEFAULTS, _VALUES(self), strict=True), seed=seed, **links)
        return run

    def to_dict(self) -> dict[str, Any]:
        """Plain values; fields at their default are left out, links are nested. `from_dict` is the inverse."""
        found = zip(_DEFAULTS.items(), _VALUES(self), strict=True)
        plain = {name: _plain(value) for (name, default), value in found if value != default}
        return plain | ({"options": {name: _plain(value) for name, value in self.options}} if self.options else {})

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Run:
        """The run that `to_dict` wrote down.

        Raises:
            ValueError: a field is unknown here (written by a later version) or has an impossible value.
        """
        unknown = sorted(set(plain) - set(_TYPES))
        if unknown:
            raise ValueError(f"this version of mixbench knows no field {', '.join(unknown)} of a run; update it")
        values: dict[str, Any] = {
            name: cls.from_dict(value) if name in LINKS else value for name, value in plain.items()
        }
        values |= {"subjects": tuple(map(cls.from_dict, plain["subjects"]))} if "subjects" in plain else {}
        if "options" in values:
            values["options"] = as_options(values["options"])
        return cls(**values)


def as_options(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A mixer's options as `Run` holds them: sorted, lists as tuples."""
    return tuple((name, _frozen(options[name])) for name in sorted(options))


def convert(name: str, value: Any) -> Any:
    """The value of field ``name`` in its declared type and range.

    Raises:
        ValueError: one sentence with the field, the value shown, and what is allowed.
    """
    value = cast_to(_TYPES[name], name, value)
    for number in value if isinstance(value, tuple) else (value,):
        if name in CHOICES and number not in CHOICES[name]:
            raise ValueError(f"{name} is one of {', '.join(CHOICES[name])}, not {number!r}")
        if name in AT_LEAST and number is not None and number < AT_LEAST[name]:
            raise ValueError(f"{name} must be {AT_LEAST[name]} or more, not {number}")
        if name in ABOVE and number <= ABOVE[name]:
            raise ValueError(f"{name} must be above {ABOVE[name]}, not {number}")
        if name in BELOW and number >= BELOW[name]:
            raise ValueError(f"{name} must be below {BELOW[name]}, not {number}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Run):
        return value.to_dict()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


_TYPES: Mapping[str, Any] = get_type_hints(Run)

_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(Run)}

_VALUES = operator.attrgetter(*_DEFAULTS)
"""Of all fields of a run, in order."""

_NEEDS = operator.attrgetter(*LINKS)

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)

FIELDS = tuple(field.name for field in fields(Run) if field.name not in (*ABOUT, *LINKS))
"""What a recipe, or ``set:``, may say of a run; the rest is what the run is about."""
