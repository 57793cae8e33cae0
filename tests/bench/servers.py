"""The Redis of the run, and what it has counted."""

import contextlib
import socket
import subprocess
from urllib.parse import urlsplit


@contextlib.contextmanager
def redis(program):
    """Have one started, and a proxy that delays in front of it; yield the URLs of both."""
    with subprocess.Popen([program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as serving:
        urls = serving.stdout.readline().split()
        if len(urls) != 2:
            raise SystemExit("no redis-server could be started")
        yield urls
        serving.stdin.close()


class Calls:
    """How many scripts the server has run, and messages it has sent, since the last look."""

    def __init__(self, url):
        place = urlsplit(url)
        self.socket = socket.create_connection((place.hostname, place.port))
        self.file = self.socket.makefile("rb")
        self.seen = self.read()

    def read(self):
        """Ask for the totals."""
        self.socket.sendall(b"INFO commandstats\r\n")
        length = int(self.file.readline()[1:])
        counts = dict.fromkeys(("eval", "evalsha", "publish"), 0)
        for line in self.file.read(length + 2).decode().splitlines():
            name, _, figures = line.removeprefix("cmdstat_").partition(":calls=")
            if name in counts:
                counts[name] = int(figures.split(",")[0])
        return counts["eval"] + counts["evalsha"], counts["publish"]

    def more(self):
        """What came since the last look: scripts, messages."""
        before, self.seen = self.seen, self.read()
        return tuple(now - then for now, then in zip(self.seen, before, strict=True))

    def close(self):
        """End the connection."""
        self.file.close()
        self.socket.close()
