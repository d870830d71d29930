"""What the runs at hand have learned that a timed method asks for: `Links`. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mixbench import catalog
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.timing.runs import SIMPLE


@dataclass(frozen=True)
class Links:
    """Finished runs of a setting, whose weights are here.

    Attributes:
        teacher: a network that Simple trained; None: there is none.
        policies: searches with the default options that asked this teacher, by method.
        bank: likewise, of those whose images a method takes; None: there is none.
    """

    teacher: Run | None
    policies: Mapping[str, Run]
    bank: Run | None

    def given(self, subject: Run) -> Run:
        """The subject, with what is there of whom it asks."""
        policy = self.policies.get(subject.method)
        there: dict[str, Any] = {"teacher": self.teacher, "policy": policy, "bank": self.bank}
        asked = catalog.declaration(subject.method).given
        return replace(subject, **{link: run for link, run in there.items() if link in asked})


def links(setting: str, store: Store) -> Links:
    """What is there for a setting; of several teachers the one whom most searches asked, then of the least seed."""
    there = [run for run in store.known() if run.setting == setting and not run.mini and store.complete(run)]
    there.sort(key=lambda run: (run.seed, run.id))
    teachers = [run for run in there if (run.method, run.task) == (SIMPLE, "classify")]
    searches = [run for run in there if run.task == "search" and not run.options]
    asked = [run.teacher for run in searches]
    teacher = max(teachers, key=asked.count, default=None)
    policies = {run.method: run for run in reversed(searches) if run.teacher == teacher}
    bank = next((run for run in there if run.task == "bank" and run.teacher == teacher), None)
    return Links(teacher, policies, bank)
