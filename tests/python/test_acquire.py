"""`acquire` and `try_acquire`, which give the lease itself: of a client and of the module, blocking and in asyncio."""

import asyncio
import gc
import os
import signal
import threading
import time

import dlock
import pytest
from conftest import is_free


def test_the_lease_itself(client):
    lease = client.acquire("k", wait=5, ttl=7, label="mine")
    assert isinstance(lease, dlock.Lease)
    assert lease.key == "k"
    assert lease.ttl == 7
    assert client.try_acquire("k") is None
    assert [one.label for one in client.contenders("k")] == ["mine"]
    lease.release()
    lease.release()
    again = client.try_acquire("k")
    assert again.fence > lease.fence
    again.release()
    assert is_free(client, "k")


def test_the_lease_itself_in_asyncio(client):
    async def main():
        lease = await client.aacquire("k", wait=5)
        assert isinstance(lease, dlock.Lease)
        assert await client.atry_acquire("k") is None
        await lease.arelease()
        again = await client.atry_acquire("k")
        assert again.fence > lease.fence
        await again.arelease()

    asyncio.run(main())
    assert is_free(client, "k")


def test_busy_until_the_deadline(client):
    async def later():
        await client.aacquire("k", wait=0.1)

    lease = client.acquire("k")
    for call in (lambda: client.acquire("k", wait=0.1), lambda: asyncio.run(later())):
        begun = time.monotonic()
        with pytest.raises(dlock.LockTimeout) as caught:
            call()
        assert 0.1 <= time.monotonic() - begun < 2
        assert (caught.value.key, caught.value.backend) == ("k", client.backend)
    with pytest.raises(dlock.LockTimeout):
        client.acquire("k", wait=0)
    with pytest.raises(dlock.LockTimeout):
        client.acquire("k", retry=(2, 0.01))
    assert client.try_acquire("k", wait=60) is None, "a try doesn't wait, whatever the options say"
    lease.release()
    assert is_free(client, "k")


def test_waits_for_its_turn(client):
    """In a thread and in a task."""
    lease, others = client.acquire("k"), []
    thread = threading.Thread(target=lambda: others.append(client.acquire("k", wait=10)))
    thread.start()
    while len(client.contenders("k")) < 2:
        time.sleep(0.01)
    lease.release()
    thread.join()

    async def main():
        task = asyncio.create_task(client.aacquire("k", wait=10))
        while len(await client.acontenders("k")) < 2:
            await asyncio.sleep(0.01)
        await others[0].arelease()
        await (await task).arelease()

    asyncio.run(main())
    assert is_free(client, "k")


def test_a_cancelled_acquire_leaves_nothing_held(client):
    async def main():
        lease = await client.aacquire("k")
        waiting = asyncio.create_task(client.aacquire("k"))
        while len(await client.acontenders("k")) < 2:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(await client.acontenders("k")) == 1
        # Granted and cancelled in the same turn of the loop.
        waiting = asyncio.create_task(client.aacquire("k"))
        while len(await client.acontenders("k")) < 2:
            await asyncio.sleep(0.01)
        lease.release()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for call in (client.aacquire, client.atry_acquire):
            never = asyncio.create_task(call("k"))
            never.cancel()
            with pytest.raises(asyncio.CancelledError):
                await never

    asyncio.run(main())
    assert is_free(client, "k", wait=5)


def test_ctrl_c_ends_the_wait(client):
    lease = client.acquire("k")
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    # A shell starts background jobs with it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            client.acquire("k")
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(client.contenders("k")) == 1
    lease.release()
    assert is_free(client, "k")


def test_left_behind(client):
    """Said, and then released."""
    lease = client.acquire("k")
    with pytest.warns(ResourceWarning, match='unreleased dlock.Lease of key "k"'):
        del lease
        gc.collect()
    assert is_free(client, "k", wait=5)

    async def main():
        lease = await client.aacquire("k")
        tried = await client.atry_acquire("l")
        # The loop's turn in which a future was settled keeps its result.
        await asyncio.sleep(0)
        with pytest.warns(ResourceWarning, match="unreleased dlock.Lease of key"):
            del lease, tried
            gc.collect()

    asyncio.run(main())
    assert is_free(client, "k", wait=5)
    assert is_free(client, "l", wait=5)


def test_a_loop_that_is_closed_keeps_nothing(client):
    """What was granted to a task that never ran again is given back."""
    lease = client.acquire("k")
    loop = asyncio.new_event_loop()
    task = loop.create_task(client.aacquire("k"))
    while len(client.contenders("k")) < 2:
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    lease.release()
    assert is_free(client, "k", wait=5)
    # Nobody will await it.
    task._log_destroy_pending = False


def test_a_wait_for_its_own_loop_is_refused(client):
    async def main():
        lease = await client.aacquire("k")
        with pytest.raises(dlock.DeadlockError):
            client.acquire("k")
        assert client.try_acquire("k") is None
        with pytest.raises(dlock.LockTimeout):
            client.acquire("k", wait=0)
        await lease.arelease()

    asyncio.run(main())


def test_a_loss_is_raised_by_release(client):
    for on_loss in ("raise", "notify"):
        lease = client.acquire("k", on_loss=on_loss)
        assert client.break_lock("k")
        assert lease.lost.wait(10)
        if on_loss == "raise":
            with pytest.raises(dlock.LockLost):
                lease.release()
        else:
            lease.release()


def test_what_cannot_be_used(client):
    for call in (client.acquire, client.try_acquire, client.aacquire, client.atry_acquire):
        for options in ({"ttl": -1}, {"wait": -1}, {"on_loss": "signal"}):
            with pytest.raises(dlock.InvalidArgument):
                call("k", **options)
        with pytest.raises(dlock.InvalidArgument):
            call("")
        with pytest.raises(TypeError):
            call(1)
        for name, meant in {
            "renew": "auto_renew",
            "loss": "on_loss",
            "timeout": "wait",
            "max_hlod": "max_hold",
        }.items():
            with pytest.raises(TypeError, match=f"did you mean {meant}"):
                call("k", **{name: 1})


def test_of_the_module(client):
    dlock.register("acquire", client)

    async def main():
        lease = await dlock.aacquire("k", service="acquire")
        assert await dlock.atry_acquire("k", service="acquire") is None
        await lease.arelease()

    lease = dlock.acquire("k", service="acquire", wait=5)
    assert dlock.try_acquire("k", service="acquire") is None
    assert client.try_acquire("k") is None
    lease.release()
    asyncio.run(main())
    for call in (dlock.acquire, dlock.try_acquire, dlock.aacquire, dlock.atry_acquire):
        with pytest.raises(dlock.InvalidArgument):
            call("k", service="nosuch")


def test_of_the_default_client(run, tmp_path):
    program = """
        import dlock
        lease = dlock.acquire("k", wait=5)
        assert dlock.try_acquire("k") is None
        assert not dlock.lock("k").acquire(False)
        lease.release()
        dlock.try_acquire("k").release()
    """
    run(program, DLOCK_FILE_DIR=str(tmp_path))
