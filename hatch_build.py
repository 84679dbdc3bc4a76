"""Builds the compiled core into the wheel where that can be done; elsewhere the wheel is pure Python, and complete.

Switches: ``OBSLOOP_PURE=1`` builds the pure wheel; ``OBSLOOP_REQUIRE_COMPILED=1`` makes a failed build an error, for
those who build wheels to publish.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "obsloop/hotpath/compiled"
SOURCE = f"{FOLDER}/core.pyx"
NAME = "obsloop.hotpath.compiled.core"


class CompiledCore(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"
    _work: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds; ``version`` is ``standard`` or ``editable``."""
        why_not = self._why_not()
        if why_not:
            self.app.display_info(f"obsloop: building the pure wheel: {why_not}")
            return
        # hatchling reads the built file when it writes the wheel, after this method: `finalize` removes the folder.
        # Where the build fails before that, the folder goes with this object.
        self._work = tempfile.TemporaryDirectory(prefix="obsloop-build-", ignore_cleanup_errors=True)
        try:
            built = self._compile(Path(self._work.name))
        except BaseException as exc:
            self._work.cleanup()
            if os.environ.get("OBSLOOP_REQUIRE_COMPILED") or isinstance(exc, KeyboardInterrupt):
                raise
            self.app.display_warning(
                f"obsloop: the compiled core could not be built ({exc}); building the pure wheel: complete, and slower"
            )
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        target = Path(self.root, FOLDER, built.name)
        if version == "editable":
            target.write_bytes(built.read_bytes())
        else:
            build_data["force_include"][str(built)] = f"{FOLDER}/{built.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling when the wheel is written."""
        if self._work:
            self._work.cleanup()

    def _why_not(self) -> str:
        if os.environ.get("OBSLOOP_PURE"):
            return "OBSLOOP_PURE is set"
        if platform.python_implementation() != "CPython":
            return f"{platform.python_implementation()} is not supported by the compiled core"
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            return "the compiled core is not tested on free-threaded builds"
        return ""

    def _compile(self, work: Path) -> Path:
        """The built extension module, in the folder `work`."""
        from Cython.Build import cythonize  # noqa: PLC0415 - needed only where there is something to build
        from setuptools import Distribution, Extension  # noqa: PLC0415
        from setuptools.command.build_ext import build_ext  # noqa: PLC0415

        optimize = ["/O2"] if sys.platform == "win32" else ["-O3", "-g0"]
        extension = Extension(NAME, [SOURCE], include_dirs=[FOLDER], extra_compile_args=optimize)
        here = os.getcwd()
        os.chdir(self.root)
        try:
            extensions = cythonize([extension], build_dir=str(work / "c"), quiet=True)
            command = build_ext(Distribution({"name": "obsloop", "ext_modules": extensions}))
            command.build_lib = str(work / "lib")
            command.build_temp = str(work / "tmp")
            command.ensure_finalized()
            command.run()
        finally:
            os.chdir(here)
        return next((work / "lib" / FOLDER).glob("core.*"))
