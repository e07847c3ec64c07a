"""An embedded Northflank: the part of its API that concerns release flows, over real HTTP.

    app = create_app(Options(token="sandbox", seed=1))
    app.state.sandbox.faults = [parse_fault("500%0.2@/runs")]

It is an ASGI application for a port of its own, independent of the rest of the product, and
described in `docs/sandbox.md`.
"""

from .app import create_app
from .faults import Fault, parse_fault
from .options import Choices, Options, add_arguments, build_options
from .sandbox import Sandbox
from .world import World

__all__ = [
    "Choices",
    "Fault",
    "Options",
    "Sandbox",
    "World",
    "add_arguments",
    "build_options",
    "create_app",
    "parse_fault",
]
