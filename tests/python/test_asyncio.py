"""asyncio: exclusion, cancellation, loss, loops that end."""

import asyncio
import os
import sys
import threading
import time

import dlock
import pytest
from conftest import is_free

UNCANCEL = sys.version_info >= (3, 11)


def test_exclusion_among_tasks(client):
    async def main():
        inside, most, fences = 0, 0, []

        async def work():
            nonlocal inside, most
            for _ in range(20):
                async with client.lock("k") as lease:
                    inside += 1
                    most = max(most, inside)
                    fences.append(lease.fence)
                    await asyncio.sleep(0)
                    inside -= 1

        await asyncio.gather(*(work() for _ in range(10)))
        return most, fences

    most, fences = asyncio.run(main())
    assert most == 1
    assert len(fences) == 200
    assert fences == sorted(set(fences))


def test_a_thousand_tasks_enter_in_the_order_they_asked(client):
    async def main():
        entered = []

        async def work(me):
            async with client.lock("k"):
                entered.append(me)

        async with client.lock("k"):
            tasks = [asyncio.create_task(work(me)) for me in range(1000)]
            await asyncio.sleep(0.1)
        await asyncio.gather(*tasks)
        return entered

    assert asyncio.run(main()) == list(range(1000))


def test_twins(client):
    async def main():
        lock = client.lock("k", auto_renew=False, ttl=5)
        assert await lock.aacquire()
        assert not await client.lock("k").aacquire(False)
        assert not await client.lock("k").aacquire(timeout=0.01)
        # A lock of these stays with its session, which has one ttl.
        longer = 5 if client.backend in ("mysql", "zookeeper") else 6
        await lock.lease.arenew(longer)
        assert lock.lease.ttl == longer
        assert [holder.held for holder in await client.acontenders("k")] == [True]
        assert await client.abreak_lock("k")
        assert await asyncio.wait_for(lock.lease.wait_lost(), 5)
        with pytest.raises(dlock.LockLost):
            await lock.arelease()
        with pytest.raises(dlock.NotHeld):
            await lock.arelease()
        await client.aping()
        async with client.lock("l") as lease:
            await lease.arelease()
            await lease.arelease()
            assert not await lease.wait_lost()

    asyncio.run(main())


def test_a_coroutine_like_any_other(client):
    async def main():
        lock = client.lock("k")
        assert await asyncio.create_task(lock.aacquire())
        await asyncio.wait_for(lock.arelease(), 1)
        never = lock.aacquire()
        del never
        assert not lock.locked()
        task = asyncio.create_task(lock.aacquire())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not lock.locked()
        other = client.lock("l")
        assert await asyncio.gather(lock.aacquire(), other.aacquire()) == [True, True]
        lock.release()
        other.release()

    asyncio.run(main())


@pytest.mark.parametrize("contended", [False, True])
def test_cancelled_at_every_moment(client, contended):
    """400 delays around the time an acquire takes: whatever it caught, nothing is held afterwards."""

    async def main():
        loop = asyncio.get_running_loop()
        obtained = 0
        for i in range(400):
            holder = client.lock("k")
            if contended:
                assert await holder.aacquire(False)
                loop.call_later(0.0005, holder.release)
            lock = client.lock("k")
            task = asyncio.create_task(lock.aacquire())
            await asyncio.sleep(0)
            loop.call_later(i * 2.5e-6, task.cancel)
            try:
                obtained += await task
                lock.release()
            except asyncio.CancelledError:
                assert not lock.locked()
            if contended:
                while holder.locked():
                    await asyncio.sleep(0.0002)
            free = client.lock("k")
            assert await free.aacquire(timeout=1), f"left behind by delay {i}"
            free.release()
        assert client.contenders("k") == []
        return obtained

    print("obtained in spite of the cancel:", asyncio.run(main()))


def test_a_second_cancel_and_a_timeout(client):
    async def main():
        async with client.lock("k"):
            task = asyncio.create_task(client.lock("k").aacquire())
            await asyncio.sleep(0.01)
            task.cancel()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            began = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.lock("k").aacquire(), 0.05)
            assert time.monotonic() - began < 1
        assert is_free(client, "k")

    asyncio.run(main())


@pytest.mark.skipif(not UNCANCEL, reason="Python 3.10 can't tell one cancel from another: there a loss only notifies")
class TestLoss:
    """A loss cancels the body and is raised at the end of the block."""

    def test_cancels_the_body(self, client):
        async def main():
            cancelled = False
            with pytest.raises(dlock.LockLost) as caught:
                async with client.lock("k", auto_renew=False, ttl=client.capabilities.min_ttl):
                    try:
                        await asyncio.sleep(10)
                    except asyncio.CancelledError:
                        cancelled = True
                        raise
            assert cancelled
            assert isinstance(caught.value.__cause__, asyncio.CancelledError)
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(0)

        asyncio.run(main())

    def test_signal_only(self, client):
        async def main():
            async with client.lock("k", auto_renew=False, ttl=client.capabilities.min_ttl, on_loss="notify") as lease:
                await asyncio.sleep(2 * client.capabilities.min_ttl)
                assert lease.lost.is_set()

        asyncio.run(main())

    def test_a_client_that_is_closed(self, url):
        async def main():
            client = dlock.connect(url)
            with pytest.raises(dlock.LockLost, match="closed"):
                async with client.lock("k") as lease:
                    await client.aclose()
                    assert lease.lost.is_set()
                    await asyncio.sleep(20)
            assert is_free(dlock.connect(url), "k")

        asyncio.run(main())

    def test_an_outer_cancel_wins(self, client):
        async def main():
            async def body():
                async with client.lock("k") as lease:
                    try:
                        await asyncio.sleep(10)
                    except asyncio.CancelledError:
                        client.break_lock("k")
                        lease.lost.wait(5)
                        raise

            task = asyncio.create_task(body())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())

    def test_an_error_of_the_body_wins(self, client):
        async def main():
            with pytest.raises(KeyError):
                async with client.lock("k", auto_renew=False, ttl=client.capabilities.min_ttl):
                    try:
                        await asyncio.sleep(10)
                    except asyncio.CancelledError:
                        raise KeyError from None
            assert asyncio.current_task().cancelling() == 0

        asyncio.run(main())

    def test_inside_a_timeout(self, client):
        async def main():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), client.lock("k"):
                    await asyncio.sleep(10)
            with pytest.raises(dlock.LockLost):
                async with asyncio.timeout(5), client.lock("k", auto_renew=False, ttl=client.capabilities.min_ttl):
                    await asyncio.sleep(10)

        asyncio.run(main())

    def test_callback_on_the_loop(self, client):
        async def main():
            called = asyncio.Event()
            where = []

            def lost(lease):
                where.append((threading.current_thread(), lease.key))
                called.set()

            lock = client.lock("k", auto_renew=False, ttl=client.capabilities.min_ttl, on_loss="notify")
            async with lock as lease:
                lease.on_lost(lost)
                await asyncio.wait_for(called.wait(), 5)
            assert where == [(threading.current_thread(), "k")]

        asyncio.run(main())


def test_callbacks_go_where_they_came_from(client):
    """One registered by a plain thread doesn't run on the loop of another."""

    async def main():
        lock = client.lock("k", on_loss="notify")
        await lock.aacquire()
        where = {}
        called = threading.Event()

        def plain(_):
            where["plain"] = threading.current_thread()
            called.set()

        lock.lease.on_lost(lambda _: where.update(loop=threading.current_thread()))
        await asyncio.to_thread(lock.lease.on_lost, plain)
        client.break_lock("k")
        assert await asyncio.to_thread(called.wait, 5)
        await asyncio.sleep(0.05)
        lock.release()
        return where

    where = asyncio.run(main())
    assert where["loop"] is threading.main_thread()
    assert where["plain"] is not threading.main_thread()


def test_blocking_on_the_own_loop_is_refused(client):
    async def main():
        async with client.lock("k"):
            with pytest.raises(RuntimeError, match="async with"):
                client.lock("k").acquire()
            with pytest.raises(RuntimeError, match="async with"), client.lock("k", wait=5):
                pass
            assert not client.lock("k").acquire(False)

    asyncio.run(main())


def test_many_loops(client):
    for _ in range(20):

        async def main():
            lock = client.lock("k")
            async with lock:
                waiter = client.lock("k")
                task = asyncio.create_task(waiter.aacquire(timeout=5))
                await asyncio.sleep(0.001)
            assert await task
            await waiter.arelease()

        asyncio.run(main())
    assert client.contenders("k") == []


def test_loops_in_threads(client):
    total = 0

    async def main():
        nonlocal total
        for _ in range(25):
            async with client.lock("k"):
                seen = total
                await asyncio.sleep(0)
                total = seen + 1

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == 100


def test_decorated_coroutine(client):
    @dlock.locked("user:{user_id}", client=client)
    async def work(user_id):
        assert not client.lock(f"user:{user_id}").acquire(False)
        await asyncio.sleep(0)
        return user_id

    assert asyncio.run(work(7)) == 7


def test_client_as_context(url):
    async def main():
        async with dlock.connect(url) as client:
            lock = client.lock("k")
            assert await lock.aacquire()
        assert is_free(dlock.connect(url), "k")

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_a_task_waits(url, run):
    """A child that leaves its parent's acquires, in whatever way, ends none of them."""
    run(
        """
        import asyncio, gc, os, signal, sys, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        import dlock
        client = dlock.connect(sys.argv[1])

        async def main():
            held, mine = client.lock("k"), client.lock("k", wait=30)
            await held.aacquire()
            task = asyncio.create_task(mine.aacquire())
            await asyncio.sleep(0.2)
            child = os.fork()
            if not child:
                signal.alarm(20)
                task.get_coro().close()
                del task
                gc.collect()
                client.ping()
                time.sleep(0.1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            await held.arelease()
            assert await task
            mine.lease.check()
            assert not await client.lock("k").aacquire(blocking=False)
            await mine.arelease()

        asyncio.run(main())
        """,
        url,
    )
