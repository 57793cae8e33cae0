from collections.abc import Callable
from typing import ParamSpec, TypeVar

from typing_extensions import Unpack

from ._dlock import BackendError as BackendError
from ._dlock import Capabilities as Capabilities
from ._dlock import Client as Client
from ._dlock import Contender as Contender
from ._dlock import DeadlockError as DeadlockError
from ._dlock import Error as Error
from ._dlock import InternalError as InternalError
from ._dlock import InvalidArgument as InvalidArgument
from ._dlock import Lease as Lease
from ._dlock import Lock as Lock
from ._dlock import LockLost as LockLost
from ._dlock import LockTimeout as LockTimeout
from ._dlock import NotHeld as NotHeld
from ._dlock import Unsupported as Unsupported
from ._dlock import __version__ as __version__
from ._dlock import _Options
from ._dlock import aacquire as aacquire
from ._dlock import acquire as acquire
from ._dlock import atry_acquire as atry_acquire
from ._dlock import connect as connect
from ._dlock import lock as lock
from ._dlock import register as register
from ._dlock import try_acquire as try_acquire

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

_P = ParamSpec("_P")
_R = TypeVar("_R")

def locked(
    key: str,
    /,
    *,
    client: Client | None = None,
    service: str | None = None,
    **options: Unpack[_Options],
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a function, or coroutine function, so that each call runs under a lock.

    `key` may name arguments of the function, as in ``"user:{user_id}"``; that is checked at once. `client` or `service`
    picks where; the other options are those of `lock`.
    """
