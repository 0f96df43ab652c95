"""Two users' machines share results through a store: their masters are real, and so is the store.

Each machine is a cache directory of its own. The tree has the same path on all of them.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.places import Place
from tests.e2e.snapshot import snapshot
from tests.edge.engine.recall.real_server import real_server
from tests.edge.engine.recall.remote_cache_server import remote_cache

MAKEFILE = """
all: out/program out/secret
out/program: out/a.o out/b.o
	gcc -o $@ $^
out/%.o: src/%.c src/a.h
	gcc -g -O1 -c -o $@ $<
out/secret: src/private.c src/a.h
	gcc -c -o $@ $<
"""
OBJECTS = 4  # commands of the Makefile; the last one reads a private file


@contextmanager
def machine(tree: Tree, name: str, port: int, settings: dict[str, object], mode: str = "read") -> Iterator[None]:
    """Run a master of another machine in the block, after the outputs were removed."""
    shutil.rmtree(tree.path / "out", ignore_errors=True)
    tree.mkdir("out")
    home = tree.where.base / name
    home.mkdir()
    tree.own(home)
    path = home / "shared.json"
    path.write_text(json.dumps(settings))
    env = {
        "XDG_CACHE_HOME": str(home),
        "TERMITE_CACHE": "on",
        "TERMITE_SHARED_CACHE": f"grpc://127.0.0.1:{port}/main",
        "TERMITE_SHARED_CACHE_MODE": mode,
        "TERMITE_SHARED_CACHE_SETTINGS": str(path),
    }
    with embedded(tree, env=env):
        yield


def make_key(where: Place, name: str) -> tuple[Path, str]:
    """Return the file of a new key, and its public half."""
    path = where.base / name
    done = where.run([where.termite("termite-ctl"), "signkey", str(path)], where.base)
    assert done.code == 0 and path.stat().st_mode & 0o777 == 0o600, done
    return path, done.stdout.decode().split()[-1]


def build(tree: Tree) -> tuple[int, int]:
    """Build, and return how many commands ran on workers, and how many results were used again."""
    done = tree.make("-j2")
    assert done.code == 0, done
    jobs = tree.status()["jobs"]
    return jobs["remote"], jobs["cached"]


@pytest.mark.parametrize("server", ["ours", "BuildGrid"])
def test_a_clean_build_on_another_machine_uses_what_the_first_one_has_built(
    user: Place, tmp_path: Path, server: str
) -> None:
    tree = new_tree(user)
    tree.write("Makefile", MAKEFILE)
    tree.write("src/a.h", "#define A 1\n")
    for name in ("a", "b", "private"):
        body = "int main(void) { return A; }" if name == "a" else f"int {name}(void) {{ return A; }}"
        tree.write(f"src/{name}.c", f'#include "a.h"\n{body}\n', 0o600 if name == "private" else 0o644)
    key, public = make_key(user, "ci.pem")
    with ExitStack() as stack:
        store = real_server(tmp_path, "main") if server == "BuildGrid" else served()
        port = stack.enter_context(store)
        with machine(tree, "ci", port, {"Key": str(key)}, "write"):
            assert build(tree) == (OBJECTS, 0)
            left = snapshot(tree.path / "out")
        with machine(tree, "desk", port, {"TrustedWriters": {"ci": public}, "Key": str(key)}):
            begun_s = time.time()
            assert build(tree) == (1, OBJECTS - 1)
            assert snapshot(tree.path / "out") == left
            assert (tree.path / "out/program").stat().st_mtime >= begun_s - 1
            assert tree.plain("out/program").code == 1
            listed = [json.loads(line) for line in tree.ctl("jobs", "--all", "--json").stdout.splitlines()]
            assert {job["cause"]["detail"].split()[-1] for job in listed if job["where"] == "cache"} == {"(ci)"}
            looked = tree.termite("sh", "-c", "cat ${PWD%/*}/desk/shared.json ${PWD%/*}/ci.pem")
            assert (looked.code, looked.stdout) == (1, b""), "no job sees keys and settings"
            shown = tree.ctl("status").stdout.decode()
            assert f"127.0.0.1:{port} answers: {OBJECTS - 1} results used, 0 sent, 0 not sent\n" in shown, shown
            stack.close()  # the store is gone
            tree.write("src/a.h", "#define A 2\n")
            assert build(tree) == (2 + OBJECTS, OBJECTS - 1)
            assert tree.plain("out/program").code == 2
            assert "does not answer" in tree.ctl("status").stdout.decode()


@contextmanager
def served() -> Iterator[int]:
    with remote_cache("main") as server:
        yield server.port


def test_wrong_settings_are_told_before_anything_runs(user: Place) -> None:
    tree = new_tree(user)
    for settings, mode, said in (
        ({}, "read", b"has no TrustedWriters"),
        ({"Key": "missing.pem"}, "write", b"missing.pem: No such file"),
        ({}, "write", b"no Key to write with"),
        ({"Trusted": {}}, "read", b"unknown field"),
    ):
        path = tree.write("shared.json", json.dumps(settings))
        flags = ["-secret", str(path), "-cache", "on", "-shared-cache", "grpc://127.0.0.1:1"]
        flags += ["-shared-cache-mode", mode, "-shared-cache-settings", str(path), "-embedded"]
        done = user.run([user.termite("termite-master"), *flags], tree.path)
        assert done.code == 100 and said in done.stderr, done
