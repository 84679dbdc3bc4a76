"""The asyncio documentation, rule by rule, held against the stock loop and against ours."""
