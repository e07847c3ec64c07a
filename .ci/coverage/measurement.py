"""Measure the lines and branches of dashboard/ that a process executes, and those it starts.

Each process leaves a file in var/coverage/; `.ci/coverage_report.py` adds them up.

slipcover asks the interpreter about each place once, which costs nothing afterwards. coverage.py
can do that from Python 3.14 on; before, it follows each line of all libraries, and the tests take
half as much processor time again.
"""

import ast
import atexit
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

import slipcover
from slipcover.branch import preinstrument

DATA = Path(__file__).resolve().parents[2] / "var" / "coverage"

recorder = slipcover.Slipcover(branch=True)


class MeasuredLoader(SourceFileLoader):
    """Loads a module with marks at its branches; keeps its byte code beside the unmarked one."""

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
        tree = preinstrument(ast.parse(data))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_data(self, path: str) -> bytes:
        return super().get_data(byte_code_path(path))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(byte_code_path(path), data, _mode=_mode)

    def get_code(self, fullname: str) -> CodeType | None:
        code = super().get_code(fullname)
        if code is not None:
            # Given a parent, it does not list the module's lines, which only the report needs.
            recorder.instrument(code, code)
        return code


def byte_code_path(path: str) -> str:
    return path.replace(".pyc", f".slipcover-{slipcover.__version__}.pyc")


def measured_folder(path: str) -> FileFinder:
    """Return the finder of a folder of dashboard/, here or in a copy; refuse other folders."""
    folder = Path(path)
    for parent in (folder, *folder.parents):
        if parent.name == "dashboard" and (parent.parent / "manage.py").exists():
            return FileFinder(path, (MeasuredLoader, [".py"]))
    raise ImportError(path)


def write() -> None:
    """Leave what was executed until now in a file of this process."""
    name = DATA / f"{os.getpid()}-{time.monotonic_ns()}"
    name.with_suffix(".part").write_bytes(pickle.dumps(dict(recorder.newly_seen)))
    name.with_suffix(".part").rename(name.with_suffix(".data"))


def exit_measured(original: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
    """Return `os._exit`, by which forked processes and workers of the test runner end."""

    def exit_(status: int) -> NoReturn:
        try:
            write()
        finally:
            original(status)

    return exit_


def terminate(number: int, frame: FrameType | None) -> None:
    """End by the signal, as a process without a handler does."""
    try:
        write()
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


atexit.register(write)
os._exit = exit_measured(os._exit)
signal.signal(signal.SIGTERM, terminate)
sys.path_hooks.insert(0, measured_folder)
