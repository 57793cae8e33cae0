"""Signals, fork and exits: what only a process of its own can show."""

import os
import signal
import subprocess
import sys
import time

import dlock
import pytest
from conftest import is_free

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork and no signals here")


def test_interrupt_in_a_blocked_acquire(url, run):
    done = run(
        """
        import signal, sys, threading, time, os
        import dlock
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with it ignored
        client = dlock.connect(sys.argv[1])
        lock = client.lock("k")
        lock.acquire()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        try:
            client.lock("k").acquire()
        except KeyboardInterrupt:
            print("out after", time.monotonic() - began - 0.3)
        else:
            sys.exit("not interrupted")
        lock.release()
        assert client.contenders("k") == []
        """,
        url,
    )
    print(done.stdout)


def test_a_signal_handler_that_raises_and_one_that_does_not(url, run):
    run(
        """
        import signal, sys, os, threading
        import dlock
        client = dlock.connect(sys.argv[1])
        lock = client.lock("k")
        lock.acquire()
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert not client.lock("k").acquire(timeout=0.4)
        assert seen == [1]
        class Stop(Exception): pass
        def stop(*_): raise Stop
        signal.signal(signal.SIGUSR1, stop)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        try:
            client.lock("k").acquire()
        except Stop:
            lock.release()
            lock.acquire(False) or sys.exit("left behind")
            lock.release()
        else:
            sys.exit("not stopped")
        """,
        url,
    )


def test_a_fork_in_a_blocked_acquire(url, run):
    """A child takes no part in the acquire that its parent waits in: it raises there, and the parent's goes on."""
    run(
        """
        import os, signal, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        import dlock
        client = dlock.connect(sys.argv[1])
        held, mine = client.lock("k"), client.lock("k", wait=30)
        held.acquire()
        parent, forked, children, statuses = os.getpid(), threading.Event(), [], []
        def fork(*_):
            child = os.fork()
            if child:
                children.append(child)
                forked.set()
            else:
                signal.alarm(20)
        def rest():
            os.kill(parent, signal.SIGUSR1)
            forked.wait()
            statuses.append(os.waitpid(children[0], 0)[1])
            held.release()
        signal.signal(signal.SIGUSR1, fork)
        timer = threading.Timer(0.2, rest)
        timer.start()
        try:
            with mine as lease:
                assert os.getpid() == parent, "the child has its parent's lock"
                timer.join()
                assert statuses == [0], statuses
                lease.check()
                assert not client.lock("k").acquire(blocking=False)
        except dlock.NotHeld as error:
            assert os.getpid() != parent and "fork" in str(error), error
            sys.exit(0)  # by all that an orderly exit does
        """,
        url,
    )


def test_fork_while_holding_and_waiting(file_url, run):
    """The child's try is busy, its exit releases nothing, other keys are free at once, the parent's lock lives on."""
    run(
        """
        import os, sys, threading, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        import dlock
        client = dlock.connect(sys.argv[1])
        lock = client.lock("k")
        inherited = client.lock("mine")
        with lock as lease:
            waiting = client.lock("k", wait=30)
            waiter = threading.Thread(target=waiting.acquire)
            waiter.start()
            time.sleep(0.1)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    assert not lock.locked() and lease.valid_for() == 0.0
                    try:
                        lease.check()
                        raise SystemExit("the child believes that it holds")
                    except dlock.NotHeld:
                        pass
                    assert not client.lock("k").acquire(False)
                    assert not lock.acquire(False)
                    try:
                        lock.release()
                        raise SystemExit("the child released")
                    except dlock.NotHeld:
                        pass
                    began = time.monotonic()
                    with inherited, client.lock("other"):
                        pass
                    assert time.monotonic() - began < 1
                    assert not client.lock("k", wait=0.1).acquire()
                    del lease, lock
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert lock.locked()
            lease.check()
            assert not dlock.connect(sys.argv[1] + "?connect_timeout=7").lock("k").acquire(False)
        waiter.join()
        waiting.release()
        """,
        file_url,
    )


def test_a_child_that_leaves_the_block(file_url, run):
    done = run(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import dlock
        client = dlock.connect(sys.argv[1])
        with client.lock("k") as lease:
            pid = os.fork()
            if pid:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
                lease.check()
                print("parent", flush=True)
        if not pid:
            print("child", flush=True)
            sys.exit(0)
        """,
        file_url,
    )
    assert done.stdout.split() == ["child", "parent"]


def test_multiprocessing_fork_and_reinit(file_url, run):
    run(
        """
        import multiprocessing, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import dlock
        lock = dlock.connect(sys.argv[1]).lock("k")

        def work(path):
            for _ in range(50):
                with lock:
                    with open(path) as file: value = int(file.read())
                    with open(path, "w") as file: file.write(str(value + 1))

        if __name__ == "__main__":
            with open("n", "w") as file: file.write("0")
            with lock: pass
            lock.acquire(); lock._at_fork_reinit()
            import gc; warnings.simplefilter("ignore", ResourceWarning); gc.collect()
            context = multiprocessing.get_context("fork")
            workers = [context.Process(target=work, args=("n",)) for _ in range(4)]
            for worker in workers: worker.start()
            for worker in workers: worker.join()
            with open("n") as file: assert file.read() == "200"
        """,
        file_url,
    )


EXITS = {
    "return": "pass",
    "exit": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "error": "raise ValueError('expected')",
    "sigterm": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)",
    "daemon": "threading.Thread(target=client.lock('k').acquire, daemon=True).start(); time.sleep(0.05)",
}


@pytest.mark.parametrize("way", EXITS)
def test_exit_while_holding(way, file_url, run):
    done = run(
        f"""
        import os, signal, sys, threading, time
        import dlock
        client = dlock.connect(sys.argv[1])
        lock = client.lock("k")
        lock.acquire()
        lock.lease.on_lost(print)
        print("held", flush=True)
        {EXITS[way]}
        """,
        file_url,
        check=False,
    )
    assert done.stdout == "held\n"
    assert done.returncode in {0, 1, -signal.SIGTERM}, done.stderr
    began = time.monotonic()
    assert is_free(dlock.connect(file_url), "k", 5)
    print("free after", time.monotonic() - began)


def exits(warnings, program, urls):
    """Runs the program once for each URL, four at a time, and says how those that failed did."""
    failed = []
    while urls:
        four, urls = urls[:4], urls[4:]
        commands = [[sys.executable, "-W", warnings, "-c", program, url] for url in four]
        running = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
        for process in running:
            _, text = process.communicate(timeout=30)
            if process.returncode:
                failed.append((process.returncode, text.decode()[-300:]))
    return failed


def test_200_exits_right_after_a_release(url):
    """No crash and no hang when a program of asyncio ends while its last completions are under way."""
    program = """
import asyncio, sys
import dlock
client = dlock.connect(sys.argv[1])
async def main():
    async def one():
        async with client.lock("k"):
            await asyncio.sleep(0)
    await asyncio.gather(*(one() for _ in range(4)))
    lost = client.lock("l", auto_renew=False, ttl=client.capabilities.min_ttl, on_loss="notify")
    await lost.aacquire()
    lost.lease.on_lost(lambda lease: None)
    asyncio.create_task(client.lock("l").aacquire())
    await asyncio.sleep(0)
asyncio.run(main())
"""
    urls = [f"{url}-{start}" if "memory" in url else url for start in range(50) for _ in range(4)]
    assert exits("ignore", program, urls) == []


def test_40_exits_with_daemon_threads_that_wait(file_url):
    """What is given back at exit goes to threads that die with the interpreter, and the warnings of theirs with it."""
    program = """
import sys, threading, time
import dlock
client = dlock.connect(sys.argv[1])
held = [client.lock(f"{key}") for key in range(8)]
for lock in held:
    lock.acquire()
    threading.Thread(target=client.lock(lock.key).acquire, daemon=True).start()
time.sleep(0.05)
"""
    assert exits("error::ResourceWarning", program, [f"{file_url}-{start}" for start in range(40)]) == []


def test_an_exit_with_threads_that_wait(url, run):
    """Nobody has his turn any more, nothing is left of those who wait, and none of them says a word."""
    holder = dlock.connect(url).lock("theirs", ttl=60)
    holder.acquire()
    done = run(
        """
        import sys, threading, time
        import dlock
        client = dlock.connect(sys.argv[1])
        held = client.lock("k", ttl=60)
        held.acquire()
        # Whoever is in memory has no others.
        for key in ["k"] * 4 + ["theirs"] * 2 * (client.backend != "memory"):
            threading.Thread(target=client.lock(key, ttl=60).acquire, daemon=True).start()
        while len(client.contenders("k")) < 5:
            time.sleep(0.01)
        """,
        url,
    )
    assert (done.stdout, done.stderr) == ("", "")
    client = dlock.connect(url)
    assert is_free(client, "k")
    assert len(client.contenders("theirs")) == 1
    holder.release()
    assert is_free(client, "theirs")


def test_what_exit_handlers_lock_is_given_back_as_well(url, run):
    run(
        """
        import atexit, sys
        def late():
            late.lock = dlock.connect(sys.argv[1]).lock("late", ttl=60)
            assert late.lock.acquire(timeout=20)
            lock.release()
        atexit.register(late)
        import dlock
        lock = dlock.connect(sys.argv[1]).lock("k", ttl=60)
        lock.acquire()
        """,
        url,
    )
    client = dlock.connect(url)
    assert is_free(client, "k")
    assert is_free(client, "late")


def test_import_brings_little(run):
    """Nothing heavy is imported by the import alone."""
    done = run(
        """
        import sys
        before = set(sys.modules)
        import dlock
        new = {name for name in set(sys.modules) - before if not name.startswith("dlock")}
        print(sorted(new - {"atexit"}))
        """
    )
    assert done.stdout.strip() == "[]"
