"""Locks between threads, processes and hosts, with leases, fencing tokens and lost-lock detection.

>>> import dlock
>>> with dlock.lock("k"):
...     pass
"""

from ._dlock import (
    BackendError,
    Capabilities,
    Client,
    Contender,
    DeadlockError,
    Error,
    InternalError,
    InvalidArgument,
    Lease,
    Lock,
    LockLost,
    LockTimeout,
    NotHeld,
    Unsupported,
    __version__,
    aacquire,
    acquire,
    atry_acquire,
    connect,
    lock,
    register,
    try_acquire,
)

__all__ = [
    "BackendError",
    "Capabilities",
    "Client",
    "Contender",
    "DeadlockError",
    "Error",
    "InternalError",
    "InvalidArgument",
    "Lease",
    "Lock",
    "LockLost",
    "LockTimeout",
    "NotHeld",
    "Unsupported",
    "__version__",
    "aacquire",
    "acquire",
    "atry_acquire",
    "connect",
    "lock",
    "locked",
    "register",
    "try_acquire",
]


def locked(key, /, *, client=None, service=None, **options):
    """Decorate a function, or coroutine function, so that each call runs under a lock.

    `key` may name arguments of the function, as in ``"user:{user_id}"``; that is checked at once. `client` or `service`
    picks where; the other options are those of `lock`.
    """
    from ._locked import decorator

    make = client.lock if client is not None else lock
    if service is not None:
        options["service"] = service
    return decorator(key, make, options)
