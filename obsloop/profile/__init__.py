"""Profiles: where time went, by stack, as plain data that is kept, merged and written in other tools' formats."""
