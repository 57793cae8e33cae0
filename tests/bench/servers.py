"""The servers of the run, and what they have counted."""

import contextlib
import socket
import subprocess
import urllib.request
from urllib.parse import urlsplit

import pymysql


@contextlib.contextmanager
def started(program, backend):
    """Have one started, and a proxy that delays in front of it; yield the URLs of both."""
    command = [program, "serve", backend]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as serving:
        urls = serving.stdout.readline().split()
        if len(urls) != 2:
            raise SystemExit(f"no server could be started: {backend}")
        yield urls
        serving.stdin.close()


def calls(backend, url):
    """What has counted there; none where there is no server."""
    of = {"redis": Scripts, "etcd": Requests, "mysql": Statements, "zookeeper": Packets}
    return of[backend](url) if is_remote(backend) else None


def is_remote(backend):
    """Whether it has a server."""
    return backend == "redis" or has_crate(backend)


def has_crate(backend):
    """Whether its raw baseline is the bare crate."""
    return backend in ("etcd", "mysql", "zookeeper")


class Calls:
    """How many requests a server has had, and messages it has sent, since the last look."""

    def __init__(self):
        self.seen = self.read()

    def more(self):
        """What came since the last look: requests, messages."""
        before, self.seen = self.seen, self.read()
        return tuple(now - then for now, then in zip(self.seen, before, strict=True))

    def close(self):
        """End it."""


class Scripts(Calls):
    """Those of a Redis, of which every request of ours is one."""

    def __init__(self, url):
        place = urlsplit(url)
        self.socket = socket.create_connection((place.hostname, place.port))
        self.file = self.socket.makefile("rb")
        super().__init__()

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

    def close(self):
        """End the connection."""
        self.file.close()
        self.socket.close()


class Requests(Calls):
    """Those of an etcd, within streams too; its messages are the answers to who watches."""

    def __init__(self, url):
        self.figures = f"http://{urlsplit(url).netloc}/metrics"
        super().__init__()

    def read(self):
        """Ask for the totals."""
        requests = messages = 0
        with urllib.request.urlopen(self.figures) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("grpc_server_msg_received_total{"):
                    requests += float(line.rpartition(" ")[2])
                if line.startswith('grpc_server_msg_sent_total{grpc_method="Watch"'):
                    messages += float(line.rpartition(" ")[2])
        return requests, messages


class Statements(Calls):
    """Those of a MySQL, which sends nothing by itself."""

    def __init__(self, url):
        place = urlsplit(url)
        self.connection = pymysql.connect(host=place.hostname, port=place.port, user="")
        super().__init__()

    def read(self):
        """Ask for the total."""
        with self.connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
            return int(cursor.fetchone()[1]), 0

    def close(self):
        """End the connection."""
        self.connection.close()


class Packets(Calls):
    """Those of a ZooKeeper; its messages are the events of watches."""

    def __init__(self, url):
        place = urlsplit(url)
        self.place = place.hostname, place.port
        super().__init__()

    def read(self):
        """Ask for the totals."""
        with socket.create_connection(self.place) as asking, asking.makefile("rb") as answer:
            asking.sendall(b"mntr")
            figures = dict(line.split("\t", 1) for line in answer.read().decode().splitlines() if "\t" in line)
        received, sent = (int(figures[f"zk_packets_{way}"]) for way in ("received", "sent"))
        return received, sent - received
