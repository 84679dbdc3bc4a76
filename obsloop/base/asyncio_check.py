"""Check whether this interpreter's asyncio has the private parts that the hot path needs.

``hotpath.pure`` has an iteration of its own, which uses private parts of the base loop. If one of them is missing,
``loop.fallback`` times through public methods instead. It costs more and sees less, but it does not break.
"""

import asyncio
from typing import Any

from obsloop.base.asyncio_private import (
    private_base_events,
    private_events,
    private_format_helpers,
    private_futures,
    private_selector_events,
    private_sslproto,
    private_tasks,
)

# The names that asyncio's iteration uses. If one is gone, obsloop's iteration no longer does the same.
_RUN_ONCE_USES = {
    "_clock_resolution", "_process_events", "_ready", "_run", "_scheduled", "_selector", "_stopping",
    "_timer_cancelled_count",
}  # fmt: skip
_HANDLE_SLOTS = {"_callback", "_args", "_cancelled", "_loop", "_source_traceback", "_repr", "_context"}
_PARTS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (
        private_selector_events.BaseSelectorEventLoop,
        ("_accept_connection", "_accept_connection2", "_add_callback", "_add_callback_signalsafe", "_add_reader",
         "_add_writer", "_check_callback", "_check_closed", "_check_thread", "_make_ssl_transport", "_process_events",
         "_read_from_self", "_remove_reader", "_remove_writer", "_write_to_self"),
    ),
    (
        private_base_events,
        ("_MIN_CANCELLED_TIMER_HANDLES_FRACTION", "_MIN_SCHEDULED_TIMER_HANDLES", "MAXIMUM_SELECT_TIMEOUT",
         "_format_handle", "_ipaddr_info"),
    ),
    (private_base_events.BaseEventLoop, ("_check_default_executor", "_ensure_resolved")),
    (
        getattr(private_sslproto, "SSLProtocol", None),
        ("_check_handshake_timeout", "_on_handshake_complete", "_set_app_protocol", "_start_handshake",
         "_start_shutdown"),
    ),
    (private_futures, ("_chain_future", "_copy_future_state")),
    (private_format_helpers, ("_format_callback_source", "extract_stack")),
    (
        getattr(private_selector_events, "_SelectorSocketTransport", None),
        ("_call_connection_lost", "_fatal_error", "_force_close", "_make_empty_waiter", "_maybe_pause_protocol",
         "_maybe_resume_protocol", "_read_ready", "_read_ready__data_received", "_read_ready__get_buffer",
         "_read_ready__on_eof", "_reset_empty_waiter"),
    ),
    (
        getattr(private_selector_events, "_SelectorDatagramTransport", None),
        ("_call_connection_lost", "_force_close", "_maybe_pause_protocol", "_maybe_resume_protocol"),
    ),
    (getattr(private_tasks, "_PyTask", None), ("_Task__step", "_Task__wakeup")),
)  # fmt: skip


def missing() -> list[str]:
    """Return the names of private parts that the hot path needs and this interpreter does not have."""
    uses = set(getattr(getattr(private_base_events.BaseEventLoop._run_once, "__code__", None), "co_names", ()))
    lacking = [f"BaseEventLoop._run_once: {name}" for name in sorted(_RUN_ONCE_USES - uses)]
    lacking += [
        f"Handle.{name}" for name in sorted(_HANDLE_SLOTS - set(getattr(private_events.Handle, "__slots__", ())))
    ]
    lacking += [
        f"TimerHandle.{name}"
        for name in ("_scheduled", "_when")
        if name not in getattr(asyncio.TimerHandle, "__slots__", ())
    ]
    lacking += [
        f"{getattr(owner, '__name__', owner)}.{name}"
        for owner, names in _PARTS
        for name in names
        if not hasattr(owner, name)
    ]
    return lacking
