"""A group: all processes that one command or one address started. Any of them answers for all.

Each process has a slot, a small number, in the group's private folder. There it publishes its metrics each second, so
that the others can show them while it is stuck or after it was killed.
"""
