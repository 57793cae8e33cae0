from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

from ._dlock import BackendError as BackendError
from ._dlock import Capability as Capability
from ._dlock import Client as Client
from ._dlock import ConfigError as ConfigError
from ._dlock import DeadlockError as DeadlockError
from ._dlock import Error as Error
from ._dlock import Holder as Holder
from ._dlock import InternalError as InternalError
from ._dlock import Lease as Lease
from ._dlock import Lock as Lock
from ._dlock import LockLost as LockLost
from ._dlock import LockTimeout as LockTimeout
from ._dlock import NotHeld as NotHeld
from ._dlock import Unsupported as Unsupported
from ._dlock import __version__ as __version__
from ._dlock import _Seconds
from ._dlock import connect as connect
from ._dlock import lock as lock
from ._dlock import register as register

__all__ = [
    "BackendError",
    "Capability",
    "Client",
    "ConfigError",
    "DeadlockError",
    "Error",
    "Holder",
    "InternalError",
    "Lease",
    "Lock",
    "LockLost",
    "LockTimeout",
    "NotHeld",
    "Unsupported",
    "__version__",
    "connect",
    "lock",
    "locked",
    "register",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

def locked(
    key: str,
    /,
    *,
    client: Client | None = None,
    service: str | None = None,
    ttl: _Seconds | None = None,
    wait: _Seconds | None = None,
    retry: tuple[int, _Seconds] | None = None,
    renew: bool | None = None,
    max_hold: _Seconds | None = None,
    token: str | None = None,
    label: str | None = None,
    fair: bool | None = None,
    handoff: int | None = None,
    loss: Literal["raise", "signal"] | None = None,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a function, or coroutine function, so that each call runs under a lock.

    `key` may name arguments of the function, as in ``"user:{user_id}"``; that is checked at once. `client` or `service`
    picks where; the other options are those of `lock`.
    """
