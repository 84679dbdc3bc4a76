"""Start integrations/autoload.py in the program under `obsloop run` and in each of its Python children.

Python runs this file at its start, since `obsloop run` has put this folder first on PYTHONPATH. It first runs the
sitecustomize that Python would have run without this one. Put nothing else here, no f-string and no newer syntax: any
interpreter may read it.
"""

import os
import sys

_FOLDER = os.path.dirname(os.path.realpath(__file__))


def _run_next() -> None:
    # Python runs only the first sitecustomize that it finds: that of the machine or of another tool may come later.
    from importlib.machinery import PathFinder  # noqa: PLC0415  (each child process pays for what is loaded)
    from importlib.util import module_from_spec  # noqa: PLC0415

    others = [entry for entry in sys.path if os.path.realpath(entry) != _FOLDER]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    # After this file, `import sitecustomize` returns the module that it finds here.
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _install() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  (the program may call any Python)
        raise ImportError("Python 3.11 or newer is needed")
    from importlib.util import module_from_spec, spec_from_file_location  # noqa: PLC0415

    # By file, not by `import obsloop`: that would load asyncio even into Python processes that do not need it.
    package = os.path.dirname(os.path.dirname(_FOLDER))
    spec = spec_from_file_location("_obsloop_autoload", os.path.join(package, "integrations", "autoload.py"))
    if spec is None or spec.loader is None:
        raise ImportError("autoload.py is missing from obsloop's own folder")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.remove_from_path(_FOLDER)
    module.install(os.path.dirname(package))


try:
    _run_next()
finally:  # site reports an error in the other file
    try:
        _install()
    except Exception as error:
        if sys.stderr is not None:
            sys.stderr.write(
                "obsloop: cannot observe " + str(sys.executable) + ": " + str(error) + ". The program runs on.\n"
            )
