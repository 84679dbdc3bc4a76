"""Real clients and servers of others, unmodified, on the loop."""

from importlib.util import find_spec

_missing = [name for name in ("aiohttp", "asyncpg", "grpc", "redis", "websockets") if find_spec(name) is None]
if _missing:
    raise ImportError(f"tests/clients needs {', '.join(_missing)}: pip install --editable '.[clients]', or `make test`")
