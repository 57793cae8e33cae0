"""Where a client comes from, and what is said when it can't come."""

import os
import stat

import dlock
import pytest

DEFAULT = """
import sys
import dlock
client = dlock.connect()
print(client.backend, client.lock("k").backend_name)
with dlock.lock("k"):
    pass
"""


def test_the_default_is_a_constant_of_the_platform(run):
    done = run(DEFAULT)
    backend, path = done.stdout.split()
    assert backend == "file"
    usable = os.path.isdir("/run/lock") and stat.S_IMODE(os.stat("/run/lock").st_mode) == 0o1777
    parent = "/run/lock" if usable else "/var/tmp"
    assert path == f"{parent}/dlock-{os.geteuid()}/k.lock"
    directory = os.stat(os.path.dirname(path))
    assert (directory.st_uid, stat.S_IMODE(directory.st_mode)) == (os.geteuid(), 0o700)
    assert os.path.getsize(path) == 0


def test_environment_and_file(run, tmp_path):
    done = run(DEFAULT, DLOCK_FILE_DIR=str(tmp_path / "locks"))
    assert done.stdout.split() == ["file", f"{tmp_path}/locks/k.lock"]
    done = run(DEFAULT, DLOCK_URL="memory://x")
    assert done.stdout.split() == ["memory", "k"]
    (tmp_path / "mine.yaml").write_text(f"file:\n  enabled: true\n  dir: {tmp_path}/yaml\n")
    done = run(DEFAULT, DLOCK_CONFIG=str(tmp_path / "mine.yaml"), check=False)
    assert done.returncode in (0, 1)


def test_a_foreign_file_is_ignored(run, tmp_path):
    (tmp_path / "config.yaml").write_text("file: 7\nother:\n  - {{ template }}\n")
    assert run(DEFAULT).stdout.startswith("file ")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DLOCK_FILE_DRI": "/tmp/x"}, "DLOCK_FILE_DIR"),
        ({"DLOCK_URL": "redsi://h"}, "memory"),
        ({"DLOCK_URL": "file://h/x"}, "file:///dir"),
        ({"DLOCK_URL": "rubbish"}, "rubbish"),
        ({"DLOCK_CONFIG": "/nowhere/x.yaml"}, "/nowhere/x.yaml"),
        ({"DLOCK_DEFAULT": "nowhere"}, "nowhere"),
        ({"DLOCK_FILE_DIR": "relative"}, "relative"),
        ({"DLOCK_REDIS_ADDRS": "r1:6379"}, "DLOCK_REDIS_ENABLED=true"),
        ({"DLOCK_MYSQL_HOST": "m1"}, "DLOCK_MYSQL_ENABLED=true"),
        ({"DLOCK_URI": "redis://r1"}, "did you mean DLOCK_URL?"),
    ],
)
def test_bad_configuration_is_said(run, environment, said):
    done = run(DEFAULT, check=False, **environment)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("dlock.InvalidArgument: ")
    assert said in last


def test_bad_yaml_names_file_and_line(run, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: 1\nb: [1, 2\n")
    done = run(DEFAULT, check=False, DLOCK_CONFIG=str(bad))
    assert "bad.yaml:" in done.stderr


def test_secrets_are_not_shown(run):
    for url in [
        "redis://user:hunter2@host/x",
        "file://user:hunter2@/x",
        "memory://user:hunter2@x",
        "x://:hunter2@[::1",
    ]:
        with pytest.raises(dlock.InvalidArgument) as caught:
            dlock.connect(url)
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(caught.value)
    client = dlock.connect("redis://user:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in repr(client)
    with pytest.raises(dlock.BackendError) as refused:
        client.ping()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        (("file",), {"dri": "/x"}),
        (("fiel",), {}),
        (("file",), {"connect_timeout": -1}),
        (("file",), {"dir": "relative"}),
        (("memory://a?nonsense=1",), {}),
    ],
)
def test_bad_arguments_of_connect(arguments):
    positional, named = arguments
    with pytest.raises((dlock.InvalidArgument, TypeError)):
        dlock.connect(*positional, **named)


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        ((None,), {}),
        ((), {"url": None}),
        ((), {"config": None}),
        ((None,), {"config": None}),
        ((None,), {"addrs": ["r1"]}),
        (("",), {}),
        ((" ",), {}),
        (("",), {"addrs": ["r1"]}),
    ],
)
def test_an_argument_that_is_not_set_is_never_the_default(positional, named):
    with pytest.raises(dlock.InvalidArgument, match="variable isn't set"):
        dlock.connect(*positional, **named)
    with pytest.raises(TypeError):
        dlock.connect(7)


@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [
        (0o664, "redis:\n  enabled: true\n  addrs: [r1:6379]\n", ["config.yaml:1", "chmod go-w", "DLOCK_URL"]),
        (0o644, "redis:\n\tenabled: true\n", ["config.yaml:2", "names redis", "DLOCK_CONFIG"]),
        (0o644, "redis:\n  enabled: ture\n", ["config.yaml:2", "redis.enabled", "true or false"]),
    ],
)
def test_a_file_that_was_meant_for_dlock_is_never_passed_over(run, tmp_path, mode, text, said):
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "config.yaml").chmod(mode)
    done = run("import dlock; dlock.lock('k')", check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("dlock.InvalidArgument: ")
    assert all(part in last for part in said), last


def test_a_service_that_was_meant_is_taken(run, tmp_path):
    (tmp_path / "config.yaml").write_text("base: &base\n  enabled: yes\nredis:\n  <<: *base\n  addrs: [127.0.0.1:1]\n")
    (tmp_path / "config.yaml").chmod(0o644)
    assert run("import dlock; print(dlock.connect().backend)").stdout == "redis\n"


def test_typed_configuration(tmp_path):
    client = dlock.connect("file", dir=tmp_path, connect_timeout=2.5, prefix="app-")
    assert client.lock("k").backend_name == f"{tmp_path}/app-k.lock"


def test_a_directory_that_cannot_be_used(tmp_path):
    missing = dlock.connect(f"file://{tmp_path}/a/b").lock("k")
    with pytest.raises(dlock.BackendError, match="parent"):
        missing.acquire()
    (tmp_path / "plain").write_text("")
    with pytest.raises(dlock.BackendError, match="not a directory"):
        dlock.connect(f"file://{tmp_path}/plain").lock("k").acquire()
    os.mkdir(tmp_path / "d")
    os.symlink("/etc/passwd", tmp_path / "d" / "k.lock")
    with pytest.raises(dlock.BackendError, match="symbolic link"):
        dlock.connect(f"file://{tmp_path}/d").lock("k").acquire()
    with pytest.raises(dlock.Error):
        dlock.connect("file:///proc/nowhere").ping()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_default_directory_of_somebody_else(run):
    """As another user, whose default directory root has made beforehand."""
    path = "/run/lock/dlock-65531" if stat.S_IMODE(os.stat("/run/lock").st_mode) == 0o1777 else "/var/tmp/dlock-65531"
    # Imported before: the other user may not be let into the folder that the package is in.
    program = "import os, dlock; os.setuid(65531)\n" + DEFAULT
    try:
        os.mkdir(path, 0o700)
        done = run(program, check=False)
        assert "belongs to user 0" in done.stderr
        assert "DLOCK_FILE_DIR" in done.stderr
        os.rmdir(path)
        os.symlink("/tmp", path)
        done = run(program, check=False)
        assert "symbolic link" in done.stderr
    finally:
        if os.path.islink(path):
            os.unlink(path)
        elif os.path.isdir(path):
            os.rmdir(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk(tmp_path, run):
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k,nr_inodes=8 tmpfs {small} 2>/dev/null"):
        pytest.skip("this machine doesn't let us mount")
    try:
        client = dlock.connect(f"file://{small}")
        held = []
        with pytest.raises(dlock.BackendError, match="full"):
            for i in range(10):
                lock = client.lock(f"k{i}", wait=1)
                lock.acquire()
                held.append(lock)
        assert held
        for lock in held:
            lock.lease.check()
            lock.release()
    finally:
        os.system(f"umount -l {small}")
