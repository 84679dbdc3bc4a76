"""Names of exceptions, as ``error.type`` has them."""

from __future__ import annotations

import errno

from obsloop.introspect.attributes import class_name, clean


def type_name(cls: type) -> str:
    """The exception's name as OpenTelemetry's ``error.type`` has it: with its module, unless it is a built-in one."""
    return clean(class_name(cls))


def error_name(exception: BaseException) -> str:
    """The same; but the system's own name (``ENETUNREACH``) where the class is ``OSError`` and says nothing."""
    return (errno_name(exception) if type(exception) is OSError else "") or type_name(type(exception))


def errno_name(exception: BaseException) -> str:
    """The system's own name for an error, ``EMFILE``; empty where it has none."""
    number = exception.errno if isinstance(exception, OSError) else None
    return errno.errorcode.get(number, "") if isinstance(number, int) else ""
