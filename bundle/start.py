"""Where the executable begins: the service, or with the first word "demo" the demonstration.

The worker process begins here too: `multiprocessing` starts the same executable with flags of its own.
"""

import multiprocessing
import os
import sys


def begin() -> int:
    if sys.argv[1:2] == ["demo"]:
        from phantom import demo

        return demo.main(sys.argv[2:])
    from main import main

    return main(sys.argv[1:], os.environ)


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(begin())
