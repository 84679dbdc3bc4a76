"""asyncio's own transports, with a ``TransportStats`` that counts."""
