"""An embedded Northflank: the part of its API that concerns release flows, over real HTTP.

    sandbox = Sandbox(Options(token="sandbox", seed=1))
    sandbox.faults = [parse_fault("500*3@/runs")]

It is an ASGI application for a port of its own, independent of the rest of the product, and
described in `docs/build/sandbox.md`.
"""

from .faults import Fault, parse_fault
from .options import Options, add_arguments, build_options
from .sandbox import Sandbox
