"""A blocking acquire that would wait for its own event loop is an error, and leaves nothing behind."""

import asyncio
import contextlib
import threading

import dlock
import pytest
from conftest import is_free


@contextlib.asynccontextmanager
async def by_with(lock):
    with lock:
        yield


@contextlib.asynccontextmanager
async def by_acquire(lock):
    lock.acquire()
    yield
    lock.release()


@contextlib.asynccontextmanager
async def by_aacquire(lock):
    await lock.aacquire()
    yield
    await lock.arelease()


def decorated(client):
    dlock.locked("k", client=client)(lambda: None)()


def entered(client):
    with client.lock("k", wait=5):
        pass


HOLDERS = {"async with": lambda lock: lock, "with": by_with, "acquire": by_acquire, "aacquire": by_aacquire}
WAITERS = {
    "with": entered,
    "acquire": lambda client: client.lock("k").acquire(),
    "timeout": lambda client: client.lock("k").acquire(timeout=5),
    "retry": lambda client: client.lock("k", retry=(50, 0.1)).acquire(),
    "locked": decorated,
}


@pytest.mark.parametrize("waiter", WAITERS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_two_coroutines_of_one_loop(client, holder, waiter):
    async def main():
        held, leave = asyncio.Event(), asyncio.Event()

        async def hold():
            async with HOLDERS[holder](client.lock("k")):
                held.set()
                await leave.wait()

        task = asyncio.create_task(hold())
        await held.wait()
        with pytest.raises(dlock.DeadlockError, match="async with") as caught:
            WAITERS[waiter](client)
        error = caught.value
        assert isinstance(error, RuntimeError)
        assert (error.kind, error.temporary, error.key, error.backend) == ("deadlock", False, "k", client.backend)
        assert not client.lock("k").acquire(False)
        assert len(await client.acontenders("k")) == 1
        leave.set()
        await task
        assert is_free(client, "k")

    asyncio.run(main())


def test_the_own_loop_gets_the_lock_while_a_coroutine_blocks(client):
    """What the loop has asked for before is granted to it, but it can't go on to see it."""
    elsewhere = client.lock("k")
    elsewhere.acquire()

    async def main():
        lock = client.lock("k")
        ahead = asyncio.create_task(lock.aacquire())
        while len(client.contenders("k")) < 2:
            await asyncio.sleep(0.01)
        threading.Timer(0.1, elsewhere.release).start()
        with pytest.raises(dlock.DeadlockError):
            client.lock("k").acquire(timeout=20)
        assert await ahead
        await lock.arelease()

    asyncio.run(main())
    assert is_free(client, "k")


def test_another_thread_may_hold_it(client):
    held, leave = threading.Event(), threading.Event()

    def hold():
        with client.lock("k"):
            held.set()
            leave.wait(10)

    async def main():
        threading.Timer(0.1, leave.set).start()
        with client.lock("k", wait=20):
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    asyncio.run(main())
    thread.join()
    assert is_free(client, "k")


def test_a_thread_of_the_loop_may_wait_for_it(client):
    async def main():
        async with client.lock("k"):
            waiter = asyncio.create_task(asyncio.to_thread(entered, client))
            await asyncio.sleep(0.05)
        await waiter

    asyncio.run(main())
    assert is_free(client, "k")
