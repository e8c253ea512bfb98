"""That no shard is visited twice: Dask hands the work of a worker that has died to another one, and says nothing.

Beside `_shards`, in a worker.  That a shard was begun with is noted in Dask's scheduler, which outlives the workers;
the note, some hundred bytes, stays there as long as the scheduler does.
"""

from __future__ import annotations

import sys


def once(name: str) -> None:
    """Go on if a shard is begun with for the first time.

    Args:
        name: of the shard; no other one has it.

    Raises:
        RuntimeError: another worker has begun with it.
    """
    distributed = sys.modules.get("distributed")  # which every worker of Dask has imported
    if distributed is None:
        return
    try:
        distributed.get_worker()
    except ValueError:  # this is no worker of Dask
        return
    begun = distributed.Event(f"remctl-{name}")
    if begun.is_set():
        raise RuntimeError("its worker has died, or could not be reached any more")
    begun.set()
