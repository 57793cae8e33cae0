"""A real etcd: configured in each way."""

import json
import subprocess

import dlock

DEFAULT = """
import dlock, subprocess, sys
with dlock.lock("configured") as lease:
    print(dlock.connect().backend, lease.fence, subprocess.check_output(sys.argv[1:]).decode())
"""


def etcdctl(address, prefix):
    """The command that shows the keys below this prefix."""
    return ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", address, "get", "--prefix", prefix, "--write-out", "json"]


def made(shown):
    """The revision at which the only key was made."""
    (key,) = json.loads(shown)["kvs"]
    return key["create_revision"]


def held(run, address, prefix, **environment):
    """Whether a program's default client holds its lock below this prefix of this server."""
    done = run(DEFAULT, *etcdctl(address, f"{prefix}configured/"), **environment)
    backend, fence, shown = done.stdout.split(maxsplit=2)
    return backend == "etcd" and int(fence) == made(shown)


def test_configured_by_the_environment(run, etcd_address):
    """The first endpoint is passed over: nobody listens there."""
    options = {"DLOCK_ETCD_ENABLED": "true", "DLOCK_ETCD_ENDPOINTS": f"127.0.0.1:1,{etcd_address}"}
    options |= {"DLOCK_ETCD_PREFIX": "env/", "DLOCK_ETCD_DIAL_TIMEOUT": "2"}
    assert held(run, etcd_address, "env/", **options)


def test_configured_by_yaml(run, etcd_address, tmp_path):
    (tmp_path / "config.yaml").write_text(
        f'etcd:\n  enabled: true\n  endpoints: ["{etcd_address}"]\n  dial_timeout: 2\n  prefix: yaml/\n'
    )
    assert held(run, etcd_address, "yaml/")


def test_configured_by_arguments(etcd_address):
    with (
        dlock.connect("etcd", endpoints=[etcd_address], dial_timeout=2, prefix="p:") as client,
        client.lock("k", ttl=5) as lease,
    ):
        assert lease.ttl == 5
        assert lease.fence == made(subprocess.check_output(etcdctl(etcd_address, "p:k/")))
