"""`python -m proxy`: the callmeter command. Workers and bookkeepers are started this way, too, by the supervisor."""

from __future__ import annotations

import sys


def main() -> None:
    kind = sys.argv[1:2]
    # Children go past the command line: it is not theirs, and importing it would cost each of them memory.
    if kind == ["worker"]:
        from . import app, child

        child.run(app.main)
    elif kind == ["bookkeeper"]:
        from . import bookkeeper, child

        child.run(bookkeeper.main)
    else:
        from .cli import main as command

        command()


if __name__ == "__main__":
    main()
