"""The part of asyncio that is easier said in Python: waiting, withdrawing, and what a loss does to a task."""

from asyncio import CancelledError


async def settle(pending):
    """Wait for a call. When cancelled, it is withdrawn first; a second cancel ends that wait at once."""
    future, withdrawn = pending.future, None
    try:
        return await future
    except CancelledError:
        if future.cancelled():
            withdrawn = pending.cancel()
            if withdrawn is not None:
                try:
                    await withdrawn
                except CancelledError:
                    pending.cancel()
                    raise
                except Exception:
                    pass  # the call ended with an error, of which its caller wants to hear no more
                else:
                    _give_back(withdrawn)
        elif future.exception() is None:
            _give_back(future)
        raise
    finally:
        pending.over()
        # The future has the error, and its traceback this frame: a circle that would keep the caller's task.
        del pending, future, withdrawn


def _give_back(future):
    """Release what was obtained although nobody wants it any more."""
    value = future.result()
    if hasattr(value, "_abandon"):
        value._abandon()


async def settle_try(pending):
    """As settle, for a try: None when it is busy."""
    from ._dlock import LockTimeout

    try:
        return await settle(pending)
    except LockTimeout:
        return None


async def enter(pending, lock, scoped):
    """Wait for a lease and let the lock hold it; answer the lease for a block, else True."""
    return lock._hold(await settle(pending), scoped)


async def attempt(pending, lock):
    """As enter, for `acquire`: False when it is busy."""
    from ._dlock import LockTimeout

    try:
        return await enter(pending, lock, False)
    except LockTimeout:
        return False


async def leave(pending, entry, failure):
    """Wait for a release and judge how the block ended."""
    from ._dlock import BackendError

    try:
        ended = await settle(pending)
    except BackendError:
        ended = None
    return entry.judge(ended, failure)
