"""Runs Python with the arguments given, as somebody for whom permissions hold: root too, without its right over them.

python -m tests.plain_user -c "open('/etc/shadow')"
"""

import ctypes
import os
import sys

PR_CAPBSET_DROP = 24
"""Linux: what is dropped is gone with the next program that the process becomes."""

DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2

if __name__ == "__main__":
    if os.geteuid() == 0:
        for right in (DAC_OVERRIDE, DAC_READ_SEARCH):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, right, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
