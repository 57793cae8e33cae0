"""Subinterpreters: refused, since what is held is the whole process's."""

import importlib.util

import pytest

WAYS = {
    "_testcapi": "import _testcapi\nrun = _testcapi.run_in_subinterp\n",
    "_xxsubinterpreters": """
import _xxsubinterpreters as interpreters
def run(text):
    child = interpreters.create()
    try:
        interpreters.run_string(child, text)
    finally:
        interpreters.destroy(child)
""",
    "_interpreters": """
import _interpreters
def run(text, config="legacy"):
    child = _interpreters.create(config)
    failed = _interpreters.run_string(child, text)
    _interpreters.destroy(child)
    assert failed is None, failed
""",
}
CHILD = """
import sys
sys.path[:] = {path!r}
try:
    import dlock
except ImportError as error:
    text = str(error)
else:
    text = "imported"
with open("said", "a") as file:
    file.write(text + chr(10))
"""


# Which there are depends on Python's version.
THERE = [name for name in WAYS if importlib.util.find_spec(name)]
assert THERE


@pytest.fixture(params=THERE)
def way(request):
    """What runs a text in a subinterpreter that ends with it."""
    return WAYS[request.param]


def test_a_second_interpreter_is_refused_and_releases_nothing(url, run, way):
    run(
        f"""
        import sys
        import dlock
        exec({way!r})
        child = {CHILD!r}.format(path=sys.path)
        client = dlock.connect(sys.argv[1])
        lock = client.lock("k")
        with lock as lease:
            for _ in range(3):
                run(child)
                said = open("said").read().splitlines()
                assert "single-interpreter" in said[-1] and "%{{GLOBAL}}" in said[-1], said
                lease.check()
                assert lock.locked()
                assert not client.lock("k").acquire(False)
            assert len(said) == 3
            try:
                client.lock("k", wait=0.05).__enter__()
            except dlock.LockTimeout as error:
                assert isinstance(error, TimeoutError) and error.kind == "timeout"
        assert client.contenders("k") == []
        """,
        url,
    )


def test_a_refused_one_before_the_first_import(file_url, run, way):
    run(
        f"""
        import sys
        exec({way!r})
        run({CHILD!r}.format(path=sys.path))
        assert "single-interpreter" in open("said").read()
        import dlock
        client = dlock.connect(sys.argv[1])
        with client.lock("k") as lease:
            lease.check()
            assert not client.lock("k").acquire(False)
        assert client.contenders("k") == []
        """,
        file_url,
    )
