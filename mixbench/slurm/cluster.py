"""What a cluster says of itself and has in its queue, as one look at it: `Cluster`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixbench.slurm import commands
from mixbench.slurm.arrays import Array
from mixbench.slurm.commands import Task
from mixbench.slurm.site import Site

TIMEOUTS = 3
"""MessageTimeouts after which a job that is not in the queue will not come there any more."""


@dataclass(frozen=True)
class Cluster:
    """One look at a cluster.

    Attributes:
        tasks: ours in the queue.
        config: its settings by name.
        partitions: the settings of each by its name, the default one first.
    """

    tasks: Sequence[Task] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    partitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def asked(cls) -> Cluster:
        """As it is now, in three calls.

        Raises:
            mixbench.slurm.UnknownError: it does not answer.
        """
        return cls(commands.tasks(), commands.config(), commands.partitions())

    @property
    def longest(self) -> int:
        """The most tasks of an array.

        Raises:
            ValueError: the cluster takes no arrays.
        """
        most = commands.reads(self.config, "MaxArraySize", 1001)
        if most < 1:
            raise ValueError("this cluster takes no job arrays (MaxArraySize is 0), and mixbench hands over no others")
        few = re.search(r"max_array_tasks=(\d+)", self.config.get("SchedulerParameters", ""))
        return min(most, int(few[1])) if few and int(few[1]) else most

    @property
    def name(self) -> str:
        """Of the cluster."""
        return self.config.get("ClusterName", "")

    @property
    def patience(self) -> float:
        """Seconds after which a job that is not in the queue will not come there any more."""
        return TIMEOUTS * commands.reads(self.config, "MessageTimeout", 10)

    def usual_minutes(self, site: Site) -> float | None:
        """The time limit of a job that asks for none; None where there is none, or nobody knows."""
        partition = self._partition(site)
        usual = partition.get("DefaultTime", "NONE")
        return commands.minutes(partition.get("MaxTime", "NONE") if usual == "NONE" else usual)

    def check_time(self, arrays: Sequence[Array], site: Site) -> None:
        """Refuse jobs that would wait for ever, since their partition allows less time than they ask for.

        Raises:
            ValueError: so it is; names the partition and its limit.
        """
        partition = self._partition(site)
        most = commands.minutes(partition.get("MaxTime", "UNLIMITED"))
        asked = [minutes for array in arrays if (minutes := site.minutes or array.minutes)]
        if most is not None and asked and max(asked) > most:
            raise ValueError(
                f"partition {partition['PartitionName']} allows {partition['MaxTime']}, and a job would ask for "
                f"{max(asked):.0f} minutes: it would never start; say --slurm time={partition['MaxTime']}, and runs go "
                "on from job to job, or name another one"
            )

    def _partition(self, site: Site) -> Mapping[str, str]:
        """The settings of the partition that jobs go to; nothing where they may go to several."""
        return self.partitions.get(str(site.options.get("partition", next(iter(self.partitions), ""))), {})
