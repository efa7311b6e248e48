"""Work on arrays, shared out over the processor's cores. Knows nothing of what is computed.

Rules for threads. The caller waits until all parts are done. Parts write into places of their own only, and share
nothing else that changes; numpy computes them at the same time, because it frees the interpreter meanwhile.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

PARTS_PER_CORE = 2
"""So that a core that other programs slow down leaves some of its share to the others."""


def parallel_for(work: Callable[[slice], None], count: int) -> None:
    """Call ``work`` for parts of range(``count``) that together are all of it, on all cores. Raises what it raises."""
    cores = os.cpu_count() or 1
    parts = min(count, cores * PARTS_PER_CORE)
    if cores == 1 or parts < 2:
        work(slice(0, count))
        return
    edges = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(cores, thread_name_prefix="cores") as pool:
        # Consumed, so that what went wrong in a part is raised here.
        list(pool.map(work, map(slice, edges[:-1], edges[1:])))
