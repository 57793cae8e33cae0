"""Waiting for a descriptor where gevent or eventlet have patched threads: through the hub of this thread."""

import sys


def here():
    """Return what waits until a descriptor is readable, or until a limit; None where a thread just waits."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from gevent._hub_local import get_hub_if_exists  # type: ignore[import-untyped]

        # A thread without a hub has no other greenlets.
        if get_hub_if_exists() is not None:
            return _gevent
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        from eventlet import hubs  # type: ignore[import-untyped]

        if hasattr(hubs._threadlocal, "hub"):
            return _eventlet
    return None


def _gevent(descriptor, limit=None):
    import gevent  # type: ignore[import-untyped]

    hub = gevent.get_hub()
    watcher = hub.loop.io(descriptor, 1)
    try:
        with gevent.Timeout(limit, False):
            hub.wait(watcher)
    finally:
        watcher.stop()
        watcher.close()


def _eventlet(descriptor, limit=None):
    from eventlet import Timeout, hubs  # type: ignore[import-untyped]

    with Timeout(limit, False):
        hubs.trampoline(descriptor, read=True)
