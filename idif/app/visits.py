"""The visits of the page and their photographs; and a lock that visitors get in the order they come."""

import threading
from collections import OrderedDict, deque
from types import TracebackType

from idif.app.uploads import Upload


class Visits:
    """The upload of every visit; at most a number of them, the oldest are deleted first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, visit: str, upload: Upload) -> None:
        """Keep a visit's upload instead of its earlier one, which is deleted."""
        with self._lock:
            gone = [self._uploads.pop(visit, None)]
            self._uploads[visit] = upload
            while len(self._uploads) > self._most:
                gone.append(self._uploads.popitem(last=False)[1])
        for old in gone:
            if old is not None:
                old.remove()

    def end(self, visit: str) -> None:
        """Delete the upload of a visit that was closed."""
        with self._lock:
            gone = self._uploads.pop(visit, None)
        if gone is not None:
            gone.remove()


class FairLock:
    """A lock that threads get in the order in which they ask; a thread that asks again comes last."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        turn = threading.Event()
        with self._guard:
            self._waiting.append(turn)
            if len(self._waiting) == 1:
                turn.set()
        turn.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._waiting.popleft()
            if self._waiting:
                self._waiting[0].set()
