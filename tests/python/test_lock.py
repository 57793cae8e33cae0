"""`threading.Lock`'s protocol, and what `with` adds.

One file, although it is long: these are the rules of one class, and most of them concern its entries.
"""

import copy
import datetime
import gc
import pickle
import threading
import time
import weakref

import dlock
import pytest
from conftest import is_free


def test_behaves_like_a_thread_lock(client):
    lock = client.lock("k")
    assert repr(lock).startswith("<unlocked dlock.Lock")
    assert not lock.locked()
    assert lock.lease is None
    assert lock.acquire() is True
    assert lock.locked()
    assert repr(lock).startswith("<locked dlock.Lock")
    assert lock.acquire(False) is False
    assert lock.acquire(blocking=False) is False
    assert lock.acquire(timeout=0.01) is False
    assert lock.lease.key == "k"
    assert lock.release() is None
    assert not lock.locked()
    with pytest.raises(dlock.NotHeld) as caught:
        lock.release()
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.kind == "not-held"
    assert caught.value.key == "k"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": -2}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"blocking": False, "timeout": 1}, ValueError),
        ({"timeout": threading.TIMEOUT_MAX * 2}, OverflowError),
        ({"timeout": "1"}, TypeError),
    ],
)
def test_refuses_what_a_thread_lock_refuses(client, arguments, error):
    lock = client.lock("k")
    with pytest.raises(error):
        lock.acquire(**arguments)
    assert not lock.locked()
    assert is_free(client, "k")


def test_a_timeout_of_minus_one_waits_for_ever(client):
    lock = client.lock("k", wait=0.01)
    held = client.lock("k")
    held.acquire()
    threading.Timer(0.1, held.release).start()
    assert lock.acquire(timeout=-1)
    lock.release()


def test_release_from_another_thread(client):
    lock = client.lock("k")
    lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    assert not lock.locked()


def test_one_object_shared_by_threads(client):
    lock = client.lock("k")
    inside, most, entries = 0, 0, 0

    def work():
        nonlocal inside, most, entries
        for _ in range(50):
            with lock:
                inside += 1
                most = max(most, inside)
                entries += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entries) == (1, 400)
    assert not lock.locked()


def test_several_locks_of_one_key_exclude_each_other(client):
    with client.lock("k") as lease:
        other = client.lock("k")
        assert not other.acquire(False)
        assert not other.locked()
        assert is_free(client, "other")
        assert lease.lost.is_set() is False
    assert other.acquire(False)
    other.release()


def test_works_under_a_condition(client):
    condition = threading.Condition(client.lock("k"))
    ready = []

    def wait():
        with condition:
            assert condition.wait_for(lambda: ready, timeout=10)
            ready.append("seen")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    with condition:
        ready.append("go")
        condition.notify_all()
    thread.join()
    assert ready == ["go", "seen"]
    with pytest.raises(RuntimeError):
        condition.notify()


def test_with_raises_when_it_is_not_obtained(client):
    with client.lock("k", label="the one", ttl=5):
        began = time.monotonic()
        with pytest.raises(dlock.LockTimeout) as caught, client.lock("k", wait=0.1):
            pass
        print("timeout after", time.monotonic() - began)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.kind, error.temporary, error.key) == ("timeout", True, "k")
    assert error.backend == client.backend
    assert '"the one"' in str(error)


def test_seconds_may_be_a_timedelta(client):
    lock = client.lock("k", ttl=datetime.timedelta(seconds=5), wait=datetime.timedelta(milliseconds=10))
    with lock as lease:
        assert lease.ttl == 5.0
        assert not client.lock("k").acquire(timeout=datetime.timedelta(milliseconds=10))


def test_an_error_of_the_body_passes_through(client):
    class Boom(Exception):
        pass

    with pytest.raises(Boom), client.lock("k"):
        raise Boom
    assert is_free(client, "k")


def test_released_inside_the_block(client):
    lock = client.lock("k")
    with lock as lease:
        lock.release()
        assert is_free(client, "k")
    assert lease.valid_for() == 0.0
    with pytest.raises(dlock.NotHeld):
        lease.check()


def test_lease_release_is_idempotent(client):
    lock = client.lock("k")
    with lock as lease:
        lease.release()
        lease.release()
        other = client.lock("k")
        assert other.acquire(False)
        lease.release()
        assert other.locked()
        other.release()


def test_a_collected_lease_warns_and_releases(client):
    lock = client.lock("left")
    lock.acquire()
    with pytest.warns(ResourceWarning, match="left"):
        del lock
        gc.collect()
    assert is_free(client, "left")


def test_weak_references_and_pickle(client):
    lock = client.lock("k", ttl=7, wait=0.5, label="me", retry=(2, 0.1), on_loss="notify")
    assert weakref.ref(lock)() is lock
    again = pickle.loads(pickle.dumps(lock))
    assert again.key == "k"
    assert pickle.dumps(again) == pickle.dumps(lock)
    with lock as lease:
        assert not again.acquire(False)
        with pytest.raises(TypeError):
            pickle.dumps(lease)
        with pytest.raises(TypeError):
            copy.copy(lease)
        assert weakref.ref(lease)() is lease


def test_the_gil_is_free_while_waiting(client):
    with client.lock("k"):
        waiting = client.lock("k", wait=0.3)
        thread = threading.Thread(target=waiting.acquire)
        thread.start()
        count = 0
        while thread.is_alive():
            count += 1
        assert count > 10_000


def test_contenders_and_break(client):
    assert client.contenders("k") == []
    assert client.break_lock("k") is False
    lock = client.lock("k", label="main", token="mine")
    lock.acquire()
    after = client.lock("k", wait=2, label="next")
    waiter = threading.Thread(target=after.acquire)
    waiter.start()
    time.sleep(0.1)
    first, second = client.contenders("k")
    assert (first.held, first.label, first.token, first.fence) == (True, "main", "mine", lock.lease.fence)
    assert first.age > 0
    assert (second.held, second.label, second.fence) == (False, "next", None)
    lost = []
    lock.lease.on_lost(lost.append)
    assert client.break_lock("k") is True
    waiter.join()
    lease = lock.lease
    assert lease.lost.wait(5)
    assert lease.valid_for() == 0.0
    with pytest.raises(dlock.LockLost):
        lease.check()
    with pytest.raises(dlock.LockLost):
        lock.release()
    for _ in range(100):
        if lost:
            break
        time.sleep(0.01)
    assert lost == [lease]
    assert not lock.locked()
    assert after.locked()
    after.release()


def test_on_lost_after_the_loss_and_collected_cycles(client):
    lock = client.lock("k", auto_renew=False, ttl=client.capabilities.min_ttl)
    lock.acquire()
    lease = lock.lease
    assert lease.lost.wait(5)
    told = threading.Event()
    lease.on_lost(lambda lost: told.set() if lost is lease else None)
    assert told.wait(5)
    with pytest.raises(dlock.LockLost):
        lock.release()

    assert lease.lost.is_set()


def test_a_callback_that_refers_to_its_lease_is_collected_with_it(client):
    def cycle():
        lock = client.lock("cycle")
        lock.acquire()
        lease = lock.lease
        lease.on_lost(lambda _: lease)
        return weakref.ref(lease)

    with pytest.warns(ResourceWarning, match="cycle"):
        gone = cycle()
        gc.collect()
    assert gone() is None


def test_loss_in_a_block(client):
    with (
        pytest.raises(dlock.LockLost) as caught,
        client.lock("k", auto_renew=False, ttl=client.capabilities.min_ttl) as lease,
    ):
        assert lease.lost.wait(5)
        assert is_free(client, "k", 2)
    assert caught.value.kind == "lost"
    with client.lock("s", auto_renew=False, ttl=client.capabilities.min_ttl, on_loss="notify") as lease:
        assert lease.lost.wait(5)
    with pytest.raises(KeyError), client.lock("e", auto_renew=False, ttl=client.capabilities.min_ttl) as lease:
        assert lease.lost.wait(5)
        raise KeyError


def test_a_lost_lease_of_a_shared_object_leaves_its_successor_alone(client):
    """Of two threads that use one object, the one that lost its lease doesn't release the other's."""
    lock = client.lock("k", auto_renew=False, ttl=max(2, client.capabilities.min_ttl))
    entered, leave = threading.Event(), threading.Event()

    def successor():
        with lock as lease:
            entered.set()
            assert leave.wait(10)
            lease.check()

    with pytest.raises(dlock.LockLost), lock:
        thread = threading.Thread(target=successor)
        thread.start()
        assert entered.wait(10)
    assert lock.locked()
    assert not client.lock("k").acquire(False)
    leave.set()
    thread.join()
    assert not lock.locked()


def test_renew_by_hand(client):
    ttl = max(2, client.capabilities.min_ttl)
    # A lock of these stays with its session, which has one ttl.
    longer = ttl if client.backend in ("mysql", "zookeeper") else ttl + 1
    with client.lock("k", auto_renew=False, ttl=ttl) as lease:
        for _ in range(3):
            time.sleep(0.4 * ttl)
            lease.renew(longer)
        assert lease.ttl == pytest.approx(longer)
        assert 0 < lease.valid_for() < longer
        with pytest.raises(dlock.InvalidArgument):
            lease.renew(0.01)
    with pytest.raises(dlock.NotHeld):
        lease.renew()


def test_max_hold(client):
    began = time.monotonic()
    with pytest.raises(dlock.LockLost, match="max_hold"), client.lock("k", max_hold=0.2) as lease:
        assert lease.lost.wait(5)
    print("told after", time.monotonic() - began)
    # Given back in the background: nobody is kept waiting for the end of what is lost.
    assert is_free(client, "k", wait=5)


def test_retry_instead_of_waiting(client):
    with client.lock("k"):
        began = time.monotonic()
        assert not client.lock("k", retry=(3, 0.05)).acquire()
        assert time.monotonic() - began >= 0.1


def test_closed_client(url):
    client = dlock.connect(url)
    other = dlock.connect(url)
    lock = client.lock("k")
    lock.acquire()
    waiter = client.lock("k")
    failed = []

    def wait():
        try:
            waiter.acquire()
        except dlock.Error as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    client.close()
    client.close()
    thread.join(5)
    assert len(failed) == 1
    assert is_free(other, "k")
    with pytest.raises(dlock.InvalidArgument, match="closed"):
        client.lock("k").acquire()


def test_the_default_client_is_nobodys_to_close(run):
    run(
        """
        import asyncio, threading
        import dlock
        with dlock.lock("k") as lease:
            mine, others = dlock.connect(), dlock.connect()
            lock, other = mine.lock("k2"), others.lock("k3")
            lock.acquire()
            other.acquire()
            told = []
            lock.lease.on_lost(lambda lease: told.append("called"))
            thread = threading.Thread(target=lambda: told.append(lock.lease.lost.wait(20)))
            thread.start()
            mine.close()
            thread.join()
            while sorted(map(str, told)) != ["True", "called"]:
                pass
            try:
                lock.release()
            except dlock.LockLost as error:
                assert "closed" in str(error), error
            else:
                raise AssertionError("a lease that somebody else has ended is lost")
            lease.check()
            other.lease.check()
            other.release()
            async def main():
                async with dlock.connect() as client, client.lock("k2"):
                    pass
            asyncio.run(main())
            lease.check()
            assert not dlock.lock("k").acquire(False)
        """,
        DLOCK_URL="memory://default",
    )


def test_decorator(client):
    calls = []

    @dlock.locked("user:{user_id}", client=client)
    def work(user_id, *rest, flag=False):
        """What it does."""
        assert not client.lock(f"user:{user_id}").acquire(False)
        calls.append((user_id, rest, flag))
        return user_id

    assert work(1) == 1
    assert work(2, 3, flag=True) == 2
    assert calls == [(1, (), False), (2, (3,), True)]
    assert (work.__name__, work.__doc__) == ("work", "What it does.")
    with pytest.raises(dlock.InvalidArgument, match="user"):
        dlock.locked("user:{user}", client=client)(lambda user_id: None)
    with pytest.raises(dlock.InvalidArgument):
        dlock.locked("user:{}", client=client)(lambda user_id: None)

    def generator(user_id):
        yield user_id

    with pytest.raises(TypeError, match="generator"):
        dlock.locked("user:{user_id}", client=client)(generator)


def test_registered_services(client):
    dlock.register("audit", client)
    lock = dlock.lock("k", service="audit")
    assert pickle.loads(pickle.dumps(lock)).key == "k"
    with lock:
        assert not client.lock("k").acquire(False)
    with pytest.raises(dlock.InvalidArgument, match="audit"):
        dlock.lock("k", service="nowhere")
    with pytest.raises(dlock.InvalidArgument):
        dlock.register("", client)


def test_capabilities(client):
    capabilities = client.capabilities
    assert capabilities.fence
    assert (
        capabilities.min_ttl
        == {"memory": 0.1, "file": 0.1, "redis": 0.1, "etcd": 2, "mysql": 1, "zookeeper": 4}[client.backend]
    )
    client.ping()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ttl": 0}, dlock.InvalidArgument),
        ({"ttl": -1}, dlock.InvalidArgument),
        ({"ttl": float("nan")}, dlock.InvalidArgument),
        ({"ttl": float("inf")}, dlock.InvalidArgument),
        ({"ttl": 0.05}, dlock.InvalidArgument),
        ({"ttl": 1e12}, dlock.InvalidArgument),
        ({"nonsense": None}, TypeError),
        ({"ttl": "30"}, TypeError),
        ({"ttl": True}, TypeError),
        ({"wait": -1}, dlock.InvalidArgument),
        ({"wait": float("nan")}, dlock.InvalidArgument),
        ({"max_hold": 0}, dlock.InvalidArgument),
        ({"retry": (0, 1)}, dlock.InvalidArgument),
        ({"retry": 3}, TypeError),
        ({"token": ""}, dlock.InvalidArgument),
        ({"token": "a\0b"}, dlock.InvalidArgument),
        ({"label": "x" * 2000}, dlock.InvalidArgument),
        ({"on_loss": "loud"}, dlock.InvalidArgument),
        ({"handoff": -1}, dlock.InvalidArgument),
        ({"handoff": 1}, dlock.Unsupported),
        ({"tttl": 1}, TypeError),
    ],
)
def test_options_that_cannot_be_used(client, options, error):
    with pytest.raises(error) as caught:
        client.lock("k", **options)
    assert next(iter(options)) in str(caught.value) or "loud" in str(caught.value)
    assert is_free(client, "k")


@pytest.mark.parametrize("key", ["", "x" * 513, "é" * 257, "a\0b", "\ud800"])
def test_keys_that_cannot_be_used(client, key):
    with pytest.raises(dlock.InvalidArgument):
        client.lock(key)


@pytest.mark.parametrize("key", [b"k", None, 1])
def test_keys_of_another_type(client, key):
    with pytest.raises(TypeError):
        client.lock(key)


@pytest.mark.parametrize("key", ["x" * 512, "../../etc", "a/b", "a b", "é", "%", ".", "..", ".fence", "\n", "k" * 300])
def test_keys_of_every_kind_are_locks_of_their_own(client, key):
    with client.lock(key) as lease, client.lock(key + "x" if len(key) < 512 else "y"):
        assert lease.key == key
        assert not client.lock(key).acquire(False)
