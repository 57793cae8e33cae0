"""What the tests share: a client of each backend, and programs run in processes of their own."""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import dlock
import pytest


def is_free(client, key, wait=0):
    """Whether the lock can be had; it is left free."""
    lock = client.lock(key, wait=wait)
    obtained = lock.acquire()
    if obtained:
        lock.release()
    return obtained


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(words, port, config=None):
    """Have a server of this test run's own; yields its address. `{}` is a folder in memory, which has `config`."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        if config is not None:
            lines = (f"{name}={value}\n".format(folder) for name, value in config.items())
            Path(folder, "config").write_text("".join(lines))
        with subprocess.Popen([word.format(folder) for word in words]) as server:
            try:
                for _ in range(1500):
                    try:
                        socket.create_connection(("127.0.0.1", port)).close()
                        break
                    except ConnectionRefusedError:
                        time.sleep(0.02)
                else:
                    raise RuntimeError(f"{words[0]} doesn't answer:\n{Path(folder, 'log').read_text()}")
                yield f"127.0.0.1:{port}"
            finally:
                server.kill()


def options(of):
    """The words for options of a command."""
    return [word for name, value in of.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def redis_address():
    """A Redis server without persistence."""
    port = free_port()
    of = {"bind": "127.0.0.1", "port": port, "dir": "{}", "databases": 2000, "logfile": "log", "save": ""}
    with serving(["redis-server", *options(of)], port) as address:
        yield address


@pytest.fixture(scope="session")
def etcd_address():
    """An etcd of one member."""
    port, peer = free_port(), free_port()
    clients, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    of = {"listen-client-urls": clients, "advertise-client-urls": clients, "listen-peer-urls": peers}
    of |= {"initial-advertise-peer-urls": peers, "initial-cluster": f"default={peers}", "data-dir": "{}/data"}
    of |= {"logger": "zap", "log-level": "error", "log-outputs": "{}/log"}
    with serving(["etcd", *options(of)], port) as address:
        yield address


@pytest.fixture(scope="session")
def mysql_address(tmp_path_factory):
    """A MariaDB that takes everybody."""
    port, folder = free_port(), tmp_path_factory.mktemp("mariadb")
    users = folder / "users.sql"
    users.write_text("CREATE USER IF NOT EXISTS ''@'%';\nGRANT ALL ON *.* TO ''@'%';\n")
    data = [
        "--no-defaults",
        "--user=root",
        f"--datadir={folder}/data",
        f"--tmpdir={folder}",
        "--innodb-log-file-size=8M",
    ]
    install = ["mariadb-install-db", *data, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    of = {"port": port, "bind-address": "127.0.0.1", "socket": f"{folder}/socket", "init-file": users}
    server = ["mariadbd", *data, "--skip-name-resolve", *(f"--{name}={value}" for name, value in of.items())]
    with serving(server, port) as address:
        yield address


@pytest.fixture(scope="session")
def zookeeper_address():
    """A ZooKeeper of one server."""
    port = free_port()
    config = {"clientPort": port, "clientPortAddress": "127.0.0.1", "dataDir": "{}/data", "maxClientCnxns": 0}
    config |= {"tickTime": 2000, "extendedTypesEnabled": "true", "admin.enableServer": "false", "preAllocSize": 1024}
    java = ["java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/*"]
    server = [*java, "org.apache.zookeeper.server.ZooKeeperServerMain", "{}/config"]
    with serving(server, port, config) as address:
        # It takes connections before it serves.
        while b"Mode:" not in said(port, b"srvr"):
            time.sleep(0.02)
        yield address


def said(port, word):
    """The answer of a ZooKeeper to one of its words, as much as comes within a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(word)
        with contextlib.suppress(OSError):
            return connection.recv(4096)
    return b""


DATABASES = itertools.count()


@pytest.fixture
def redis_url(redis_address):
    """The URL of a database nobody else uses."""
    return f"redis://{redis_address}/{next(DATABASES)}"


@pytest.fixture
def etcd_url(etcd_address):
    """The URL of keys nobody else uses."""
    return f"etcd://{etcd_address}?prefix={uuid.uuid4().hex}/"


@pytest.fixture
def mysql_url(mysql_address):
    """The URL of locks nobody else uses."""
    return f"mysql://{mysql_address}?collateral=true&prefix={uuid.uuid4().hex}:"


@pytest.fixture
def mysql_table_url(mysql_address):
    """The URL of rows nobody else uses."""
    return f"mysql://{mysql_address}?mode=table&prefix={uuid.uuid4().hex}:"


@pytest.fixture
def zookeeper_url(zookeeper_address):
    """The URL of nodes nobody else uses."""
    return f"zookeeper://{zookeeper_address}?prefix=/{uuid.uuid4().hex}"


@pytest.fixture
def memory_url():
    """The URL of a name nobody else uses."""
    return f"memory://{uuid.uuid4().hex}"


# A backend is a fixture NAME_url; its name here has the tests of all backends run on it.
@pytest.fixture(params=["memory", "file", "redis", "etcd", "mysql", "mysql_table", "zookeeper"])
def url(request):
    """The URL of a backend nobody else uses."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def client(url):
    """A client of a backend nobody else uses."""
    with dlock.connect(url) as client:
        yield client


@pytest.fixture
def file_url(tmp_path):
    """The URL of a lock directory nobody else uses."""
    return f"file://{tmp_path}"


@pytest.fixture
def run(tmp_path):
    """Run a program of its own; its output is its answer."""

    def run(code, *arguments, timeout=50, check=True, **environment):
        program = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DLOCK_")}
        done = subprocess.run(
            program,
            env=inherited | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run
