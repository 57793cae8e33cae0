from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from os import PathLike
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypedDict, final, type_check_only

from typing_extensions import Self, Unpack

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
    "Lost",
    "NotHeld",
    "Unsupported",
    "__version__",
    "_restore",
    "_shutdown",
    "aacquire",
    "acquire",
    "atry_acquire",
    "connect",
    "lock",
    "register",
    "try_acquire",
]
__version__: str

# Seconds as a number, or a timedelta.
_Seconds: TypeAlias = float | timedelta

@type_check_only
class _Options(TypedDict, total=False):
    """The options of an acquire. `Client.lock` describes them."""

    ttl: _Seconds | None
    wait: _Seconds | None
    retry: tuple[int, _Seconds] | None
    auto_renew: bool | None
    max_hold: _Seconds | None
    token: str | None
    label: str | None
    fair: bool | None
    handoff: int | None
    on_loss: Literal["raise", "notify"] | None

class Error(Exception):
    """Every error of dlock. kind, temporary (trying again can help), key and backend say what it concerns."""

    kind: str | None
    temporary: bool
    key: str | None
    backend: str | None

class LockTimeout(Error, TimeoutError):
    """The lock was busy until the deadline."""

class LockLost(Error):
    """The lease is no longer ours, or can't be proven to be."""

class NotHeld(Error, RuntimeError):
    """Nothing is held: the lock is not locked, or its lease was made before a fork."""

class BackendError(Error, ConnectionError):
    """The backend can't be reached, refuses or is overloaded."""

class InvalidArgument(Error, ValueError):
    """A key, option, URL or configuration that can't be used."""

class Unsupported(Error, NotImplementedError):
    """This backend can't do it; the message names those that can."""

class InternalError(Error):
    """A defect of dlock."""

class DeadlockError(Error, RuntimeError):
    """The caller itself holds the key, so the wait could never end."""

@final
class Capabilities:
    """What a backend can do and promises."""

    @property
    def fence(self) -> bool: ...
    @property
    def ttl(self) -> bool: ...
    @property
    def fifo(self) -> bool: ...
    @property
    def shared(self) -> bool: ...
    @property
    def permits(self) -> bool: ...
    @property
    def handoff(self) -> bool: ...
    @property
    def processes(self) -> bool: ...
    @property
    def fork(self) -> bool: ...
    @property
    def min_ttl(self) -> float: ...
    @property
    def guarantee(self) -> str: ...

@final
class Contender:
    """A contender: it holds a key or waits for it. What the backend can't tell is None."""

    @property
    def held(self) -> bool: ...
    @property
    def token(self) -> str | None: ...
    @property
    def label(self) -> str | None: ...
    @property
    def host(self) -> str | None: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def fence(self) -> int | None: ...
    @property
    def age(self) -> float | None: ...
    @property
    def ttl(self) -> float | None: ...

@final
class Lost:
    """The loss of a lease, as an event."""

    def is_set(self) -> bool:
        """Whether the lease was lost: computed from the clock at the call."""

    def wait(self, timeout: _Seconds | None = None) -> bool:
        """Wait for the loss. False: the timeout came first, or the lease was released."""

@final
class Lease:
    """A lock that is held, until it is released, lost, or collected."""

    @property
    def key(self) -> str:
        """The user's key."""

    @property
    def token(self) -> str:
        """The text that proves ownership: the user's own, or one unique to this acquisition."""

    @property
    def fence(self) -> int | None:
        """The fencing token: greater for every later grant of the key; None where the backend has none."""

    @property
    def ttl(self) -> float:
        """The ttl that was granted, in seconds."""

    @property
    def lost(self) -> Lost:
        """The loss of the lease, as an event."""

    def valid_for(self) -> float:
        """Seconds that it still counts with no further renewal: 0.0 when not held, inf for no limit."""

    def check(self) -> None:
        """Raise LockLost unless the lock is still ours (NotHeld if it was released)."""

    def renew(self, ttl: _Seconds | None = None) -> None:
        """Renew by hand, with a new ttl if one is given."""

    def arenew(self, ttl: _Seconds | None = None) -> Coroutine[Any, Any, None]:
        """Renew by hand, with a new ttl if one is given."""

    def release(self) -> None:
        """Give the lock back. Idempotent; raises LockLost if it was lost before (not with on_loss="notify")."""

    def arelease(self) -> Coroutine[Any, Any, None]:
        """Give the lock back. Idempotent; raises LockLost if it was lost before (not with on_loss="notify")."""

    def wait_lost(self) -> Coroutine[Any, Any, bool]:
        """Wait for the end of the lease: True when it was lost, False when it was released."""

    def on_lost(self, callback: Callable[[Lease], object]) -> None:
        """Have callback(lease) called once when the lease is lost, at once if it was.

        In a thread that runs an event loop it is called on that loop, else on a thread of a pool.
        """

    def _abandon(self) -> None: ...

@final
class Lock:
    """A key and how to hold it. May be shared by threads and tasks; locks of one key exclude each other."""

    @property
    def key(self) -> str:
        """The user's key."""

    @property
    def backend_name(self) -> str:
        """The name under which the backend knows the key; for the file backend the path of the lock file."""

    @property
    def lease(self) -> Lease | None:
        """The current lease, or None."""

    def acquire(self, blocking: bool = True, timeout: _Seconds | None = None) -> bool:
        """Acquire as `threading.Lock` does. No timeout: as the lock's `wait` says; -1: for ever."""

    def release(self) -> None:
        """Give the lock back. Raises NotHeld if it is not held, LockLost if it was lost."""

    def locked(self) -> bool:
        """Whether this object holds the lock."""

    def aacquire(self, blocking: bool = True, timeout: _Seconds | None = None) -> Coroutine[Any, Any, bool]:
        """Acquire, in asyncio."""

    def arelease(self) -> Coroutine[Any, Any, None]:
        """Give the lock back, in asyncio."""

    def __enter__(self) -> Lease: ...
    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None, /
    ) -> bool: ...
    def __aenter__(self) -> Coroutine[Any, Any, Lease]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None, /
    ) -> Coroutine[Any, Any, bool]: ...
    def _hold(self, lease: Lease, scoped: bool) -> Lease | bool: ...
    def _at_fork_reinit(self) -> None: ...
    def _is_owned(self) -> bool: ...

@final
class Client:
    """A handle on one backend. Clients of equal configuration share connection, local queue and watchdog."""

    def lock(
        self,
        key: str,
        **options: Unpack[_Options],
    ) -> Lock:
        """Return a lock on this key. No I/O.

        ttl: how long the backend keeps the lock with no renewal (default 30 s).
        wait: how long to wait in all (default: for ever; 0: try once).
        retry: (tries, delay) instead of waiting.
        auto_renew: whether it is renewed for as long as it is held (default True).
        max_hold: after this long the lease is lost and deleted at the backend.
        token, label: the text that proves ownership; free text shown by `contenders`.
        fair: first come, first served across processes.
        handoff: how many times in a row the lock may be passed on inside this process.
        on_loss: "raise" (default), or "notify" to be only told of a loss.
        """

    def acquire(
        self,
        key: str,
        **options: Unpack[_Options],
    ) -> Lease:
        """Acquire this key, and return the lease. Raises LockTimeout if it is busy until the deadline.

        The options are those of `lock`.
        """

    def try_acquire(
        self,
        key: str,
        **options: Unpack[_Options],
    ) -> Lease | None:
        """Try once, whatever the options say. None: busy."""

    def aacquire(
        self,
        key: str,
        **options: Unpack[_Options],
    ) -> Coroutine[Any, Any, Lease]:
        """Acquire this key, in asyncio. A cancelled call leaves nothing held."""

    def atry_acquire(
        self,
        key: str,
        **options: Unpack[_Options],
    ) -> Coroutine[Any, Any, Lease | None]:
        """Try once, in asyncio. None: busy."""

    def contenders(self, key: str) -> list[Contender]:
        """Return who holds the key and who waits for it, holder first."""

    def acontenders(self, key: str) -> Coroutine[Any, Any, list[Contender]]:
        """Return who holds the key and who waits for it, holder first."""

    def break_lock(self, key: str) -> bool:
        """Take the lock away from whoever holds it; return whether anybody did."""

    def abreak_lock(self, key: str) -> Coroutine[Any, Any, bool]:
        """Take the lock away from whoever holds it; return whether anybody did."""

    def ping(self) -> None:
        """Check that the backend answers."""

    def aping(self) -> Coroutine[Any, Any, None]:
        """Check that the backend answers."""

    def close(self) -> None:
        """End this handle: its waiters get an error, its leases are lost to their holders and released. Idempotent."""

    def aclose(self) -> Coroutine[Any, Any, None]:
        """End this handle: its waiters get an error, its leases are lost to their holders and released. Idempotent."""

    @property
    def backend(self) -> str:
        """The backend's name."""

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do and promises."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_failure: object) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(self, *_failure: object) -> Coroutine[Any, Any, None]: ...

def lock(
    key: str,
    *,
    service: str | None = None,
    **options: Unpack[_Options],
) -> Lock:
    """Return a lock on this key, of the default client or of a named service's. The options are `Client.lock`'s."""

def acquire(
    key: str,
    *,
    service: str | None = None,
    **options: Unpack[_Options],
) -> Lease:
    """Acquire this key with the default client or a named service, and return the lease. See `Client.acquire`."""

def try_acquire(
    key: str,
    *,
    service: str | None = None,
    **options: Unpack[_Options],
) -> Lease | None:
    """Try once with the default client or a named service. None: busy."""

def aacquire(
    key: str,
    *,
    service: str | None = None,
    **options: Unpack[_Options],
) -> Coroutine[Any, Any, Lease]:
    """Acquire this key with the default client or a named service, in asyncio."""

def atry_acquire(
    key: str,
    *,
    service: str | None = None,
    **options: Unpack[_Options],
) -> Coroutine[Any, Any, Lease | None]:
    """Try once with the default client or a named service, in asyncio. None: busy."""

def connect(
    url: str = ...,
    *,
    config: str | PathLike[str] = ...,
    **options: str | bool | float | timedelta | Sequence[str] | PathLike[str] | None,
) -> Client:
    """Return the client for a URL, a backend's name and options, a YAML file, or the default one. No I/O."""

def register(name: str, client: Client) -> None:
    """Name a client, so that `lock(key, service=name)` finds it anywhere in the process."""

def _restore(origin: object, key: str, options: dict[str, object]) -> Lock: ...
def _shutdown() -> None: ...
