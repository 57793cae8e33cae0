"""One `Lock` that threads and tasks share: whoever leaves gives back its own, and never the valid lease of another."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import dlock
import pytest
from conftest import is_free


class Thread:
    """A thread that does what it is told."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(1)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.pool.shutdown()

    async def do(self, act, *arguments):
        return await asyncio.wrap_future(self.pool.submit(act, *arguments))

    async def enter(self, lock):
        return await self.do(lock.__enter__)

    async def leave(self, lock):
        return await self.do(lock.__exit__, None, None, None)

    async def acquire(self, lock):
        await self.do(lock.acquire)
        return lock.lease

    async def release(self, lock):
        await self.do(lock.release)


class Task:
    """A task that does what it is told, and goes on when the loss of a lease cancels it."""

    def __init__(self):
        self.jobs = asyncio.Queue()
        self.failure = None
        self.task = asyncio.create_task(self.work())

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.jobs.put_nowait(None)
        await self.task

    async def work(self):
        while True:
            try:
                job = await self.jobs.get()
            except asyncio.CancelledError as cancelled:
                self.failure = cancelled
                continue
            if job is None:
                return
            act, done = job
            try:
                done.set_result(await act())
            except Exception as error:
                done.set_exception(error)

    async def do(self, act):
        done = asyncio.get_running_loop().create_future()
        self.jobs.put_nowait((act, done))
        return await done

    async def enter(self, lock):
        return await self.do(lock.__aenter__)

    async def leave(self, lock):
        failure = self.failure
        return await self.do(lambda: lock.__aexit__(type(failure) if failure else None, failure, None))

    async def acquire(self, lock):
        await self.do(lock.aacquire)
        return lock.lease

    async def release(self, lock):
        await self.do(lock.arelease)


class Blocking(Task):
    """A task that uses the blocking calls."""

    def step(self, act, *arguments):
        async def step():
            return act(*arguments)

        return self.do(step)

    async def enter(self, lock):
        return await self.step(lock.__enter__)

    async def leave(self, lock):
        return await self.step(lock.__exit__, None, None, None)

    async def acquire(self, lock):
        await self.step(lock.acquire)
        return lock.lease

    async def release(self, lock):
        await self.step(lock.release)


async def lose(client, lease):
    assert await client.abreak_lock("k")
    assert await asyncio.wait_for(lease.wait_lost(), 5)
    await asyncio.sleep(0)


PLACES = [Thread, Task, Blocking]


@pytest.mark.parametrize("second", PLACES)
@pytest.mark.parametrize("first", PLACES)
@pytest.mark.parametrize("way", ["block", "release", "release elsewhere"])
def test_one_that_has_lost_its_lease_leaves_its_successors_alone(client, first, second, way):
    async def main():
        lock = client.lock("k")
        async with first() as one, second() as two, first() as three:
            lost = await (one.enter(lock) if way == "block" else one.acquire(lock))
            await lose(client, lost)
            lease = await two.enter(lock)
            with pytest.raises(dlock.LockLost):
                await (one.leave(lock) if way == "block" else (one if way == "release" else three).release(lock))
            lease.check()
            assert lock.locked()
            assert not client.lock("k").acquire(False)
            await two.leave(lock)
            assert not lock.locked()
            assert is_free(client, "k")

    asyncio.run(main())


@pytest.mark.parametrize("second", PLACES)
@pytest.mark.parametrize("first", PLACES)
def test_a_successor_that_leaves_first_ends_its_own_block(client, first, second):
    async def main():
        lock = client.lock("k")
        async with first() as one, second() as two:
            await lose(client, await one.enter(lock))
            await two.enter(lock)
            await two.leave(lock)
            assert not lock.locked()
            assert is_free(client, "k")
            with pytest.raises(dlock.LockLost):
                await one.leave(lock)

    asyncio.run(main())


@pytest.mark.parametrize("second", PLACES)
@pytest.mark.parametrize("first", PLACES)
def test_a_release_reports_a_loss_before_it_gives_back_what_is_held(client, first, second):
    async def main():
        lock = client.lock("k")
        async with first() as one, second() as two:
            await lose(client, await one.acquire(lock))
            lease = await two.acquire(lock)
            with pytest.raises(dlock.LockLost):
                await two.release(lock)
            lease.check()
            await two.release(lock)
            assert not lock.locked()
            with pytest.raises(dlock.NotHeld):
                await one.release(lock)

    asyncio.run(main())


@pytest.mark.parametrize("second", PLACES)
@pytest.mark.parametrize("first", PLACES)
@pytest.mark.parametrize("by", ["lock", "lease"])
def test_a_block_whose_lock_was_given_back_inside_leaves_its_successors_alone(client, first, second, by):
    async def main():
        lock = client.lock("k")
        async with first() as one, second() as two:
            first_lease = await one.enter(lock)
            await (one.release(lock) if by == "lock" else first_lease.arelease())
            lease = await two.enter(lock)
            await one.leave(lock)
            lease.check()
            assert lock.locked()
            await two.leave(lock)
            assert is_free(client, "k")

    asyncio.run(main())


def test_a_lock_given_back_by_its_lease_is_not_held(client):
    lock = client.lock("k")
    lock.acquire()
    lock.lease.release()
    with pytest.raises(dlock.NotHeld):
        lock.release()
    for _ in range(3):
        lock.acquire()
        lock.lease.release()
    with pytest.raises(dlock.NotHeld):
        lock.release()
    with pytest.raises(dlock.NotHeld):
        lock.release()


def test_released_and_acquired_inside_a_block_as_conditions_do(client):
    lock = client.lock("k")
    with lock:
        lock.release()
        lock.acquire()
        assert lock.locked()
    assert not lock.locked()
    assert is_free(client, "k")
