"""The raw baselines in C, and a queue of threads before them."""

import ctypes
import subprocess
import threading
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent


def library(folder):
    """Compile them."""
    built = Path(folder) / "raw.so"
    sources = [HERE / "raw_file.c", HERE / "raw_redis.c"]
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, *sources], check=True)
    raw = ctypes.CDLL(str(built))
    raw.flock_pairs.restype = raw.redis_pairs.restype = ctypes.c_double
    raw.redis_open.restype = ctypes.c_void_p
    for function in (raw.redis_close, raw.redis_take, raw.redis_give, raw.redis_pairs):
        function.argtypes = [ctypes.c_void_p]
    raw.redis_pairs.argtypes = [ctypes.c_void_p, ctypes.c_long]
    return raw, built


class Pair:
    """One connection to Redis that takes and gives a key of its own."""

    def __init__(self, raw, url):
        place = urlsplit(url)
        self.raw = raw
        self.conn = raw.redis_open(place.hostname.encode(), place.port, b"raw")
        if not self.conn:
            raise SystemExit(f"no Redis at {url}")

    def pairs(self, count):
        """Take and give so many times; return the seconds."""
        took = self.raw.redis_pairs(self.conn, count)
        if took < 0:
            raise SystemExit("a raw command failed")
        return took

    def close(self):
        """End the connection."""
        self.raw.redis_close(self.conn)


class Queue:
    """First come, first served among threads; whoever has the turn takes and gives at Redis."""

    def __init__(self, pair):
        self.take, self.give, self.conn = pair.raw.redis_take, pair.raw.redis_give, pair.conn
        self.mutex, self.taken, self.waiting = threading.Lock(), False, deque()

    def __enter__(self):
        with self.mutex:
            seat = None
            if self.taken:
                seat = threading.Lock()
                seat.acquire()
                self.waiting.append(seat)
            self.taken = True
        if seat:
            seat.acquire()
        if self.take(self.conn):
            raise SystemExit("a raw SET failed")

    def __exit__(self, *_):
        if self.give(self.conn):
            raise SystemExit("a raw EVALSHA failed")
        with self.mutex:
            if self.waiting:
                self.waiting.popleft().release()
            else:
                self.taken = False
