"""What a client asks of a profile, as written in its query."""

from urllib.parse import parse_qsl

from obsloop.service.messages import Request

BUSY = "Another profile is being taken now. Only one is at a time: ask again when it is over."
SAMPLING_SECONDS = (0.1, 60.0)
_DEFAULT = 30.0


def values(request: Request) -> dict[str, str]:
    """Return the names and values of the query."""
    return dict(parse_qsl(request.query[:2_000]))


def number(written: str, default: float) -> float:
    """Return a number of a query; 0 if it is none, and the default if it is missing."""
    try:
        return float(written) if written else default
    except ValueError:
        return 0.0


def sampling_seconds(request: Request) -> float:
    """Return for how many seconds a client asks to sample; 0 if that is not accepted."""
    seconds = number(values(request).get("seconds", ""), _DEFAULT)
    return seconds if SAMPLING_SECONDS[0] <= seconds <= SAMPLING_SECONDS[1] else 0.0
