"""What the tests read of the kernel themselves, to judge whether the machine was busy."""

import threading
from pathlib import Path


def on_the_run_queue(native_id: int | None = None) -> float:
    """Seconds that a thread of this process (the calling one) could have run and got no CPU; 0.0 where no one counts.

    The kernel adds a wait when it ends.
    """
    try:
        text = Path(f"/proc/self/task/{native_id or threading.get_native_id()}/schedstat").read_text()
    except OSError:
        return 0.0
    return int(text.split()[1]) / 1e9
