"""asyncio's own transports, with a ``Link`` that counts."""
