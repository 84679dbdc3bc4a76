"""Names of exceptions, for the label ``error.type``."""

from __future__ import annotations

import errno

from obsloop.introspect.attributes import class_name, clean


def type_name(cls: type) -> str:
    """Return the exception's name as in OpenTelemetry's ``error.type``: with its module, unless it is built in."""
    return clean(class_name(cls))


def error_name(exception: BaseException) -> str:
    """Return the exception's name; for a plain ``OSError``, the system's name of the error (``ENETUNREACH``)."""
    return (errno_name(exception) if type(exception) is OSError else "") or type_name(type(exception))


def errno_name(exception: BaseException) -> str:
    """Return the system's name of an error, such as ``EMFILE``; empty if it has none."""
    number = exception.errno if isinstance(exception, OSError) else None
    return errno.errorcode.get(number, "") if isinstance(number, int) else ""
