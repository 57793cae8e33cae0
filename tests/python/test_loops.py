"""Event loops that end, and calls that fail: nothing of theirs is kept."""

import asyncio
import contextlib
import gc
import threading
import weakref

import dlock
import pytest
from conftest import is_free


@pytest.fixture
def loop(caplog):
    """A loop that is stopped and closed with tasks under way, of which asyncio complains in its log."""
    caplog.set_level("CRITICAL", "asyncio")
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def turn(loop):
    """Have the loop go round once."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def until(loop, is_so):
    """Have the loop go round until something is so."""

    async def wait():
        while not is_so():
            await asyncio.sleep(0.005)

    loop.run_until_complete(asyncio.wait_for(wait(), 20))


def waiting(client, many=1):
    """Whether so many wait for the lock, beside its holder."""
    return len(client.contenders("k")) == many + 1


def test_an_acquire_under_way_is_withdrawn(client, loop):
    holder = client.lock("k")
    holder.acquire()
    lock = client.lock("k")
    task = loop.create_task(lock.aacquire())
    until(loop, lambda: waiting(client))
    loop.close()
    holder.release()
    assert is_free(client, "k", 20)
    assert client.contenders("k") == []
    assert not lock.locked()
    del task


@pytest.mark.parametrize("picked_up", [False, True])
def test_what_was_granted_when_the_loop_ended_is_given_back(client, loop, picked_up):
    """Granted, and not even seen by the loop; or seen, with the task not yet gone on."""
    holder = client.lock("k")
    holder.acquire()
    lock = client.lock("k", label="of the loop")
    task = loop.create_task(lock.aacquire())
    until(loop, lambda: waiting(client))
    holder.release()
    granted = threading.Event()
    while not granted.wait(0.01):
        if any(one.held for one in client.contenders("k")):
            granted.set()
    if picked_up:
        waits_for = task._fut_waiter
        while not waits_for.done():
            turn(loop)
        assert not task.done()
    loop.close()
    assert is_free(client, "k", 20)
    assert not lock.locked()
    del task


async def by_async_with(lock):
    async with lock:
        await asyncio.Event().wait()


async def by_aacquire(lock):
    assert await lock.aacquire()
    await asyncio.Event().wait()


async def by_with(lock):
    with lock:
        await asyncio.Event().wait()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("way", [by_async_with, by_aacquire, by_with])
def test_a_task_that_holds_when_its_loop_is_closed(client, loop, way, kept):
    async def other():
        async with client.lock("other"):
            pass

    loop.run_until_complete(other())
    lock = client.lock("k")
    tasks = [loop.create_task(way(lock))]
    until(loop, lock.locked)
    if not kept:
        tasks.clear()
    with pytest.warns(ResourceWarning, match='"k"'):
        loop.close()
        gc.collect()
    assert not lock.locked()
    assert is_free(client, "k", 5)


def test_collecting_a_task_of_a_closed_loop_leaves_others_alone(client, loop):
    """Its block ends by being collected, inside whatever runs then: here a task of another loop, which holds."""
    lock = client.lock("k")
    tasks = [loop.create_task(by_async_with(lock))]
    until(loop, lock.locked)
    with pytest.warns(ResourceWarning, match='"k"'):
        loop.close()

    async def main():
        async with lock as lease:
            tasks.clear()
            gc.collect()
            lease.check()
            assert lock.locked()
            assert not client.lock("k").acquire(False)

    asyncio.run(main())
    assert is_free(client, "k")


def test_what_a_finished_task_has_left_is_kept(client, loop):
    """It belongs to the lock and its lease, as with `threading.Lock`."""
    lock = client.lock("k")
    assert loop.run_until_complete(lock.aacquire())
    loop.close()
    assert lock.locked()
    assert not client.lock("k").acquire(False)
    lock.release()
    assert is_free(client, "k")


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.parametrize("way", [by_async_with, by_aacquire])
def test_a_thread_that_ends_with_its_loop(client, way, caplog):
    """The loop isn't even closed: it is collected, with its tasks."""
    caplog.set_level("CRITICAL", "asyncio")
    holding, waited = client.lock("k"), client.lock("l")
    holder = client.lock("l")
    holder.acquire()

    def work():
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(way(holding)), loop.create_task(way(waited))]
        until(loop, lambda: holding.locked() and len(client.contenders("l")) == 2)
        del tasks

    with pytest.warns(ResourceWarning, match='"k"'):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        gc.collect()
    holder.release()
    assert is_free(client, "k", 20)
    assert is_free(client, "l", 20)


async def timed_out(client, _):
    assert not await client.lock("k").aacquire(timeout=0.001)


async def timed_out_block(client, _):
    with pytest.raises(dlock.LockTimeout):
        async with client.lock("k", wait=0.001):
            pass


async def cancelled(client, _):
    task = asyncio.create_task(client.lock("k").aacquire())
    await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def cancelled_twice(client, _):
    task = asyncio.create_task(timed_out_block(client, _))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def waited_for(client, _):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.lock("k").aacquire(), 0.001)


async def no_loss(_, lease):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(lease.wait_lost(), 0.001)


async def no_backend(_, __):
    with pytest.raises(dlock.BackendError):
        await dlock.connect("redis://127.0.0.1:1").aping()


async def closed(_, lease):
    client = dlock.connect("redis://127.0.0.1:1")
    task = asyncio.create_task(client.acontenders("k"))
    await asyncio.sleep(0)
    await client.aclose()
    with contextlib.suppress(dlock.Error):
        await task


FAILURES = [timed_out, timed_out_block, cancelled, cancelled_twice, waited_for, no_loss, no_backend, closed]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_thousand_calls_that_fail_leave_no_object(client, failure):
    async def main():
        async with client.lock("k") as lease:
            tasks = []

            async def some(many):
                running = [asyncio.create_task(failure(client, lease)) for _ in range(many)]
                tasks.extend(weakref.ref(task) for task in running)
                await asyncio.gather(*running)

            async def objects():
                for _ in range(1000):
                    tasks[:] = [task for task in tasks if task()]
                    if not tasks:
                        break
                    await asyncio.sleep(0.005)
                assert [task() for task in tasks] == []
                gc.collect()
                return len(gc.get_objects())

            await some(100)
            before = await objects()
            for _ in range(10):
                await some(100)
            after = await objects()
            assert after - before < 100

    asyncio.run(main())
    assert is_free(client, "k")
