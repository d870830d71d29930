"""The process that measures: a `Request` on its standard input, the record on its standard output."""

from __future__ import annotations

import json
import os
import sys

from mixbench.running import INTERRUPTED
from mixbench.timing.request import Request


def main() -> None:
    """Measure, and answer; what cannot be measured is said in one sentence."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints does not end up in the answer
    request = Request.from_dict(json.load(sys.stdin))
    from mixbench.timing.session import record  # imports torch

    try:
        found = record(request, tell=lambda sentence: print(sentence, file=sys.stderr))  # noqa: T201
    except KeyboardInterrupt:  # the terminal has told the process that waits as well
        sys.exit(INTERRUPTED)
    except ValueError as error:
        found = {"refused": str(error)}
    with answer:
        json.dump(found, answer)


if __name__ == "__main__":
    main()
