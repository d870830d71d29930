"""Kills the process once, right after a file operation, where the variable MIXBENCH_KILL_AFTER says so.

It holds a pattern for the file's new path and a marker file that makes sure of the "once". Python imports this
module at start-up when its folder is on PYTHONPATH; the code under test knows nothing of it.
"""

import os
import re
import signal

pattern, _, marker = os.environ.get("MIXBENCH_KILL_AFTER", "").partition("|")


def deadly(operation):
    def operate(source, target, *args, **kwargs):
        result = operation(source, target, *args, **kwargs)
        if re.search(pattern, str(target)):
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return result
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return operate


if pattern:
    os.rename, os.replace, os.link = map(deadly, (os.rename, os.replace, os.link))
