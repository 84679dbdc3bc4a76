"""What the applications of this folder do with a request: block once in each round, and write down how long."""

import os
import time
from contextlib import suppress

FOLDER = os.environ["DOOR_FOLDER"]


def block(seconds):
    """Block the loop."""
    time.sleep(seconds)


def take_turn(path):
    """Block if this process is first to ask for its turn. `path` is /ROUND/SECONDS, or /one-ROUND/SECONDS.

    A round has a turn for each process, or one turn in all if its name begins with "one".
    """
    turn, _, seconds = path.strip("/").partition("/")
    if not seconds:
        return "ready"
    file = os.path.join(FOLDER, turn if turn.startswith("one") else f"{turn}-{os.getpid()}") + ".turn"
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        begin = time.monotonic()
        block(float(seconds))
        took = time.monotonic() - begin
        with open(f"{file}.new", "w") as note:
            note.write(f"{os.getpid()} {took}")
        os.replace(f"{file}.new", file)
        return "blocked"
    return "had its turn"
