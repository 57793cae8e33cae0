"""gevent and eventlet, where they have patched threads: a blocking call waits through their hub."""

import pytest

GEVENT = """
    import gevent.monkey
    gevent.monkey.patch_all()
    import gevent
    spawn, sleep, kill, Timeout = gevent.spawn, gevent.sleep, gevent.kill, gevent.Timeout
    def join(all): gevent.joinall(all, raise_error=True)
"""
EVENTLET = """
    import warnings
    warnings.simplefilter("ignore")
    import eventlet
    eventlet.monkey_patch()
    warnings.simplefilter("error")
    spawn, sleep, kill, Timeout = eventlet.spawn, eventlet.sleep, eventlet.kill, eventlet.Timeout
    def join(all): [one.wait() for one in all]
"""
COMMON = """
    import os, signal, sys, threading, time
    import dlock
    client = dlock.connect(sys.argv[1])
"""


@pytest.fixture(params=["gevent", "eventlet"])
def green(request, url, run):
    """Run a program whose threads are greenlets."""
    patch = {"gevent": GEVENT, "eventlet": EVENTLET}[request.param]
    return lambda program: run(patch + COMMON + program, url)


# A local backend and one with a server: the hub is the same for all.
two = pytest.mark.parametrize("url", ["memory", "redis"], indirect=True)


def test_greenlets_that_share_one_lock(green):
    green(
        """
    lock = client.lock("k", wait=30)
    inside, most, entries = 0, 0, []
    def work(me):
        global inside, most
        for _ in range(5):
            with lock as lease:
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                lease.check()
                entries.append(lease.fence)
                inside -= 1
    threads = [threading.Thread(target=work, args=(me,)) for me in range(5)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert most == 1, most
    assert len(entries) == 25 and entries == sorted(entries), entries
    assert not lock.locked() and client.contenders("k") == []
    """
    )


@two
def test_the_others_go_on_and_a_wait_ends_by_its_timeout(green):
    green(
        """
    lock, ticks = client.lock("k"), []
    def tick():
        while True:
            ticks.append(1)
            sleep(0.01)
    ticker = spawn(tick)
    with lock:
        assert not client.lock("k").acquire(timeout=0.5)
        assert len(ticks) > 5, len(ticks)
        try:
            with client.lock("k", wait=0.1): pass
        except dlock.LockTimeout: pass
        else: sys.exit("entered")
        assert not client.lock("k").acquire(False)
        assert len(client.contenders("k")) == 1
        assert not lock.lease.lost.wait(0.05)
    kill(ticker)
    client.ping()
    with client.lock("k", wait=5): pass
    """
    )


@two
def test_what_the_hub_raises_ends_a_wait(green):
    green(
        """
    class Enough(Exception): pass
    lock = client.lock("k")
    with lock:
        try:
            with Timeout(0.1, Enough): client.lock("k").acquire()
        except Enough: pass
        else: sys.exit("not interrupted")
        waiter = spawn(client.lock("k").acquire)
        while len(client.contenders("k")) < 2: sleep(0.01)
        kill(waiter)
        sleep(0.01)
        for _ in range(500):
            if len(client.contenders("k")) == 1: break
            sleep(0.01)
        assert len(client.contenders("k")) == 1
    with client.lock("k", wait=5): pass
    """
    )


@two
def test_interrupt(green):
    green(
        """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lock = client.lock("k")
    lock.acquire()
    def interrupt():
        sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
    spawn(interrupt)
    try:
        client.lock("k").acquire()
    except KeyboardInterrupt: pass
    else: sys.exit("not interrupted")
    lock.release()
    with client.lock("k", wait=5): pass
    assert client.contenders("k") == []
    """
    )


@two
def test_native_threads_beside_a_hub(green):
    """A thread without greenlets just waits."""
    green(
        """
    lock = client.lock("k")
    if "gevent" in sys.modules:
        native = lambda work: gevent.get_hub().threadpool.spawn(work).get()
    else:
        import eventlet.tpool
        native = eventlet.tpool.execute
    lock.acquire()
    def leave():
        sleep(0.2)
        lock.release()
    spawn(leave)
    other = client.lock("k", wait=20)
    assert native(other.acquire)
    other.release()
    """
    )


@two
def test_a_greenlet_that_has_lost_its_lease_leaves_its_successor_alone(green):
    green(
        """
    lock = client.lock("k")
    lost, left = threading.Event(), threading.Event()
    def first():
        try:
            with lock as lease:
                client.break_lock("k")
                lease.lost.wait(5)
                lost.set()
                left.wait(10)
        except dlock.LockLost: return
        sys.exit("not told of its loss")
    def second():
        lost.wait(5)
        with lock as lease:
            sleep(0.01)
            lease.check()
        assert not lock.locked()
        left.set()
    join([spawn(first), spawn(second)])
    with client.lock("k", wait=5): pass
    """
    )
