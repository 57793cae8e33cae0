"""A process that locks with kazoo: `peer.py HOSTS PATH RULE ENTRIES COMMAND...`.

It runs the command inside, with one more word: how it enters.
"""

import itertools
import subprocess
import sys

from kazoo.client import KazooClient

PATIENCE = 60


def turns(zk, path, rule):
    """Returns the locks of the entries, each with its word. They are used in turns."""
    if rule == "alone":
        return [(zk.Lock(path), "alone")]
    if rule == "readers":
        return [(zk.ReadLock(path), "reader")] * 3 + [(zk.WriteLock(path), "alone")]
    return [(zk.Semaphore(path, max_leases=int(rule)), rule)]


def main(hosts, path, rule, entries, *command):
    zk = KazooClient(hosts=hosts)
    zk.start(timeout=PATIENCE)
    for lock, how in itertools.islice(itertools.cycle(turns(zk, path, rule)), int(entries)):
        assert lock.acquire(timeout=PATIENCE)
        try:
            subprocess.run([*command, how], check=True)
        finally:
            lock.release()
    zk.stop()
    zk.close()


main(*sys.argv[1:])
