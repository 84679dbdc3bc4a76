# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=False
"""The compiled core: it behaves as the pure core does, in C.

One extension module, made of the files that are included below. ``core.pxd`` declares what they share; ``native.h`` has
what is written in C. Most files have a pure twin, which their first lines name. Read the twin first: names and order
are the same here, and its comments are not repeated. What differs:

* Handles are C structs. Their ``__class__`` is asyncio's own class, so that ``isinstance`` holds.
* The loop's fields that the hot path reads (``_ready``, ``_closed`` ...) are in a C struct, ``State``. ``Field``
  descriptors on the loop class give all other code access to them by their names.
* ``run_once`` polls the standard epoll selector with ``epoll_wait``, on the selector's descriptor and with its table of
  keys.
"""

import _thread
import asyncio
import heapq
import inspect
import selectors
import time
from os import strerror
from asyncio import futures, tasks
from collections import deque

cimport cython

from obsloop.metrics import counters as _counters
from obsloop.base import clock as _clock
from obsloop.hotpath import cold_path as _cold
from obsloop.hotpath import kinds as _kinds
from obsloop.metrics import coroutine_times as _coroutines
from obsloop.hotpath import creation_samples as _created
from obsloop.hotpath import marks as _marks
from obsloop.introspect import attributes as _peek
from obsloop.hotpath import observer as _slow
from obsloop.hotpath import patched as _patched
from obsloop.metrics.buckets import COUNTS, SECONDS
from obsloop.base.asyncio_private import private_base_events, private_selector_events
from obsloop.introspect.coroutines import is_task

include "clock.pxi"
include "buckets.pxi"
include "counters.pxi"
include "fields.pxi"
include "wakeup.pxi"
include "handles.pxi"
include "loop_state.pxi"
include "self_pipe.pxi"
include "scheduling.pxi"
include "task_table.pxi"
include "task_steps.pxi"
include "create_task.pxi"
include "iteration.pxi"
include "socket_io.pxi"
include "libuv_hooks.pxi"

METHODS = {
    "call_soon": call_soon,
    "call_soon_threadsafe": call_soon_threadsafe,
    "call_later": call_later,
    "call_at": call_at,
    "create_future": create_future,
    "create_task": create_task,
    "get_debug": get_debug,
    "time": TIME,
    "_run_once": run_once,
    "_add_reader": add_reader,
    "_add_writer": add_writer,
    "_remove_reader": remove_reader,
    "_remove_writer": remove_writer,
    "_read_from_self": read_from_self,
    "_write_to_self": write_to_self,
    **{name: Field(i) for i, name in enumerate(FIELD_NAMES)},
}
"""What a loop class takes from the core."""
