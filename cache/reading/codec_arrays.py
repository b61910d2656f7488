"""Opens compressed arrays with tensorstore: shards on disk, or fetched into memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorstore as ts

from cache.format.layout import ArrayLayout
from cache.format.manifest import GroupPlan
from cache.format.object_store import ObjectPath
from cache.format.shard_codec import memory_array
from idif.errors import StoreDamaged


def open_array(folder: Path, context: Any) -> Any:
    """Open an array on disk.

    Raises:
        StoreDamaged: its metadata cannot be read.
    """
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": folder.as_posix() + "/"},
        "fill_missing_data_reads": False,
        "recheck_cached_data": "open",
        "recheck_cached_metadata": "open",
    }
    try:
        return ts.open(spec, open=True, read=True, context=context).result()
    except (ValueError, OSError) as error:
        raise StoreDamaged(f"{folder}: cannot be opened ({error})") from None


def fetch_array(folder: ObjectPath, array: ArrayLayout, plan: GroupPlan, requests: ThreadPoolExecutor) -> Any:
    """Open a group's array in an object store; its shards are fetched into memory in their stored form.

    Arrays with codecs are small: masks are nearly all zeros, and a row has a few hundred scales. A missing
    shard is missing in memory, too, and the rows' checksums reveal damage.
    """

    def get(shard: int) -> bytes | None:
        try:
            return (folder / array.shard_file(shard)).read_bytes()
        except OSError:
            return None

    target = memory_array(array, len(plan.index), plan.shard_rows)
    for shard, data in enumerate(requests.map(get, range(len(plan.bounds)))):
        if data is not None:
            target.kvstore.write(array.shard_file(shard).removeprefix(f"{array.name}/"), data).result()
    return target
