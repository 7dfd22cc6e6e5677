"""Time and change: things that happen later, and waiting for anything to change.

One lock guards the whole world. What happens later runs in the clock's own thread, with the lock held."""

import heapq
import itertools
import sys
import threading
import time
import traceback

LOCK = threading.RLock()
CHANGED = threading.Condition(LOCK)

_queue = []
_count = itertools.count()
_wake = threading.Condition()


def changed():
    """Wakes everybody who waits for a change; the caller holds the lock."""
    CHANGED.notify_all()


def after(seconds, action):
    """Has something happen later."""
    with _wake:
        heapq.heappush(_queue, (time.monotonic() + seconds, next(_count), action))
        _wake.notify()


def _run():
    while True:
        with _wake:
            while not _queue or _queue[0][0] > time.monotonic():
                _wake.wait(_queue[0][0] - time.monotonic() if _queue else None)
            action = heapq.heappop(_queue)[2]
        try:
            with LOCK:
                action()
                changed()
        except Exception:
            traceback.print_exc(file=sys.stderr)


def start():
    threading.Thread(target=_run, name="clock", daemon=True).start()
