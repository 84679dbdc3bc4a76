"""`obsloop top`: watch observed processes in a terminal. Only this command loads it, and it changes no process.

`target.py` says which processes, `local.py` and `remote.py` read them, `overview.py`, `lists.py` and `tasks.py` make
rows for people. `once.py` prints them, and `app.py` shows them with Textual.
"""
