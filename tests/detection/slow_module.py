"""A module that is slow to import."""

import time

from tests.detection import cases

with cases.lasting():
    enough = time.thread_time() + cases.BLOCK
    if cases.block is cases.sleep:
        time.sleep(cases.BLOCK)
    else:
        while time.thread_time() < enough:
            pass
