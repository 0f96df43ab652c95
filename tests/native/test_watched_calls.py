"""Calls that need the submitter's machine send the command there, or fail as they would there."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.native.sandboxes import IS_ROOT, USERS, Job, Sandboxes, sandboxes_of, small_base

NATIVE = Path(__file__).parents[2] / "native/sandbox"
ORDINARY = {"uid": "1000", "gid": "1000", "root": "0"}
ROOT = {"uid": "0", "gid": "0", "root": "1"}
CAPABILITY = "security.capability"
LIST = "system.posix_acl_access"


@pytest.fixture(scope="module")
def base(sandbox_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    program = tmp_path_factory.mktemp("watched") / "watched_calls"
    source = Path(__file__).with_suffix(".c").with_name("watched_calls.c")
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-static", source, "-o", program], check=True
    )
    with small_base(sandbox_program) as base:
        shutil.copy(program, base / "root/usr/bin")
        shutil.copy(program, base)
        yield base


@pytest.fixture(scope="module", params=[*USERS, "ordinary user, traced"])
def sandboxes(base: Path, request: pytest.FixtureRequest) -> Sandboxes:
    """Return sandboxes with the listener of `serve`, and traced ones, whose pid 1 listens."""
    user, _, traced = request.param.partition(", ")
    return replace(sandboxes_of(base, user), traced="exact" if traced else "")


def run(sandboxes: Sandboxes, script: str, job: dict[str, str]) -> Job:
    return sandboxes.run(["sh", "-c", f"exec 2>&1; {script}"], job, own=f"{job['uid']}:{job['gid']}")


@pytest.mark.parametrize("ids", ["0:0", "0", ":0", "1000:0", "4321:1000", "65534"])
def test_an_ordinary_user_may_not_give_a_file_away(sandboxes: Sandboxes, ids: str) -> None:
    job = run(sandboxes, f"touch f; chown {ids} f; chown -h {ids} f", ORDINARY)
    assert job.out.count("Operation not permitted") == 2, job
    assert job.status == 1
    assert "here" not in job.fields


@pytest.mark.parametrize("ids", ["1000:1000", "1000", ":1000", "-1"])
def test_own_ids_change_nothing(sandboxes: Sandboxes, ids: str) -> None:
    job = run(sandboxes, f"touch f; chown -- {ids.replace('-1', '1000')} f && chown -R 1000 . && echo ok", ORDINARY)
    assert (job.out, job.status) == ("ok\n", 0)


def test_in_a_namespace_of_its_own_a_job_is_root(sandboxes: Sandboxes) -> None:
    job = run(sandboxes, "touch f; unshare -r sh -c 'chown 0:0 f && chown 5 f'", ORDINARY)
    assert "Invalid argument" in job.out, "the kernel judges there"
    assert "Operation not permitted" not in job.out


@pytest.mark.parametrize(
    "script", ["chown 1000 f", "chown -h :5 f", "setpriv --reuid 65534 id", "setpriv --keep-groups --regid 5 id"]
)
def test_what_root_could_do_sends_the_command_home(sandboxes: Sandboxes, script: str) -> None:
    job = run(sandboxes, f"touch f; {script}; echo not reached", ROOT)
    assert job.fields["here"] == "ids"
    assert job.out == ""


@pytest.mark.parametrize("script", ["chgrp 30 f", "chown 1000:30 f", "chown -h :40 f"])
def test_a_file_that_an_ordinary_user_gives_to_a_group_of_his_is_given_there(sandboxes: Sandboxes, script: str) -> None:
    own = "1000:1000:30:40"
    job = sandboxes.run(["sh", "-c", f"touch f; {script}; echo not reached"], ORDINARY, own=own)
    assert (job.fields["here"], job.out) == ("ids", "")
    refused = sandboxes.run(["sh", "-c", "touch f; chgrp 50 f; chown 5:30 f; echo $?"], ORDINARY, own=own)
    assert (refused.out, refused.err.count("Operation not permitted")) == ("1\n", 2), refused
    assert "here" not in refused.fields


@pytest.mark.parametrize("ids", ["1000", "1000:", "a:b", "1000:1000:", "1000:1000:x", ":".join(["7"] * 259)])
def test_ids_that_are_none_are_refused(sandbox_program: Path, ids: str) -> None:
    run = subprocess.run([sandbox_program, "serve", f"--own={ids}", "0", "/"], capture_output=True, check=False)
    assert (run.returncode, run.stderr.startswith(b"usage:")) == (100, True)


@pytest.mark.parametrize("mode", ["S_IFCHR", "S_IFBLK"])
def test_a_device_is_made_where_root_is_root(sandboxes: Sandboxes, mode: str) -> None:
    job = run(sandboxes, f"watched_calls make f {mode}; echo not reached", ROOT)
    assert (job.fields["here"], job.out) == ("device", "")
    assert run(sandboxes, f"watched_calls make f {mode}", ORDINARY).out == f"{errno.EPERM}\n"
    assert run(sandboxes, "watched_calls make f S_IFREG; watched_calls make g S_IFIFO", ROOT).out == "0\n0\n"


@pytest.mark.parametrize("path", [".", "/", "/home/me", "f"])
def test_who_asks_for_the_space_of_a_disk_is_sent_home(sandboxes: Sandboxes, path: str) -> None:
    job = run(sandboxes, f"touch f; stat -f {path}; echo not reached", ORDINARY)
    assert (job.fields["here"], job.out) == ("space", "")


@pytest.mark.parametrize("path", [".", "/", "f"])
def test_who_asks_by_an_open_file_is_sent_home_too(sandboxes: Sandboxes, path: str) -> None:
    job = run(sandboxes, f"touch f; watched_calls space-by-file {path}; echo not reached", ORDINARY)
    assert (job.fields["here"], job.out) == ("space", "")


def test_programs_that_walk_through_directories_and_other_files_stay(sandboxes: Sandboxes) -> None:
    asked = "; ".join(f"watched_calls space-by-file {path}" for path in ("pipe", "/proc", "/dev/null", "/sys"))
    walk = "mkdir d; echo x >d/f; grep -r x d; chown -R 1000 d; cp /usr/bin/watched_calls find; ./find space-by-file ."
    job = run(sandboxes, f"{asked}; {walk}", ORDINARY)
    assert (job.out, job.fields.get("here")) == ("0\n0\n0\n0\nd/f:x\n0\n", None)


def test_programs_may_look_for_selinux(sandboxes: Sandboxes) -> None:
    job = run(
        sandboxes, "watched_calls space /sys/fs/selinux; watched_calls space /selinux; ls; cp -p /bin/true t", ORDINARY
    )
    assert job.out == f"{errno.ENOENT}\n{errno.ENOENT}\n"


@pytest.mark.parametrize(
    "script",
    ["ln f g; cat g", "ln f g; cat g; echo", "ln f g && stat -c %i f g", "cp -l f g; ls", "watched_calls link f g"],
)
def test_a_link_is_told_if_somebody_may_compare_the_names(sandboxes: Sandboxes, script: str) -> None:
    assert run(sandboxes, f"echo 1 >f; {script}", ORDINARY).fields.get("linked") == "1"


@pytest.mark.parametrize(
    "script", ["ln f g; echo", "ln f g && echo; exit 0", "cat f; ln f g", "ls; cp -l f g", "cat f"]
)
def test_a_link_at_the_end_is_not_told(sandboxes: Sandboxes, script: str) -> None:
    assert run(sandboxes, f"echo 1 >f; {script}", ORDINARY).fields.get("linked") is None


def test_roots_own_ids_stay(sandboxes: Sandboxes) -> None:
    job = run(sandboxes, "touch f; chown 0:0 f && setpriv --keep-groups --reuid 0 --regid 0 echo ok", ROOT)
    assert (job.out, job.fields.get("here")) == ("ok\n", None)


def test_root_can_make_user_namespaces(sandboxes: Sandboxes) -> None:
    job = run(sandboxes, "unshare -r id -u && unshare -rmpf --mount-proc sh -c 'echo $$'", ROOT)
    assert job.out == "0\n1\n"


def test_an_ordinary_user_may_not_become_another(sandboxes: Sandboxes) -> None:
    job = run(sandboxes, "setpriv --reuid 65534 id; setpriv --keep-groups --regid 65534 id", ORDINARY)
    assert job.out.count("Operation not permitted") == 2, job


@pytest.mark.parametrize("kind", [ORDINARY, ROOT])
def test_a_list_of_rights_with_names_sends_the_command_home(sandboxes: Sandboxes, kind: dict[str, str]) -> None:
    job = run(sandboxes, f"touch f; watched_calls set f {LIST} 44; echo not reached", kind)
    assert (job.fields["here"], job.out) == ("attributes", "")


def test_a_mode_in_the_form_of_a_list_does_not(sandboxes: Sandboxes) -> None:
    job = run(sandboxes, "echo 1 >f; cp -p f g; echo $?", ORDINARY)
    assert (job.out, job.fields.get("here")) == ("0\n", None)


def test_attributes_of_users_work_in_a_job(sandboxes: Sandboxes) -> None:
    """They are found when the job has ended, because a test may set and remove one."""
    job = run(sandboxes, "touch f; watched_calls set f user.mine 5", ORDINARY)
    assert (job.out, job.fields.get("here")) == ("0\n", None)


def test_root_may_set_capabilities_and_an_ordinary_user_may_not(sandboxes: Sandboxes) -> None:
    assert run(sandboxes, f"touch f; watched_calls set f {CAPABILITY} 20", ROOT).fields["here"] == "attributes"
    job = run(sandboxes, f"touch f; watched_calls set f {CAPABILITY} 20", ORDINARY)
    assert job.fields.get("here") is None
    assert int(job.out) in (errno.EPERM, errno.EINVAL)


def test_a_job_that_listens_to_calls_is_sent_home(sandboxes: Sandboxes) -> None:
    job = run(sandboxes, "watched_calls listen; echo not reached", ORDINARY)
    assert (job.fields["here"], job.out) == ("listener", "")


def test_a_process_that_its_parent_has_left_is_found(sandboxes: Sandboxes) -> None:
    job = run(sandboxes, "touch f; (setsid sh -c 'sleep 0.1; chown 5 f' &); sleep 5; echo not reached", ROOT)
    assert (job.fields["here"], job.out) == ("ids", "")


def test_a_job_cannot_pretend_to_be_sent_home(sandboxes: Sandboxes) -> None:
    job = run(sandboxes, "for s in USR1 USR2 HUP ALRM TERM; do kill -$s 1; done; echo reached", ORDINARY)
    assert (job.out, job.fields.get("here")) == ("reached\n", None)


def test_without_a_listener_an_ordinary_users_change_of_owner_fails(sandboxes: Sandboxes) -> None:
    """The worker runs below another listener, so that the kernel gives it none, and it says so."""
    below = (str(sandboxes.base / "watched_calls"), "below-listener", *sandboxes.enter)
    if sandboxes.user != "root worker" and IS_ROOT:  # as that user: root's filter would be taken off at the change
        below = (*sandboxes.enter[:4], *below[:2], *sandboxes.enter[4:])
    deaf = replace(sandboxes, enter=below)
    if sandboxes.traced:
        pytest.skip("no job can be traced there")
    job = run(deaf, "touch f; chown 0 f; setpriv --reuid 5 id", ORDINARY)
    assert job.out.count("Operation not permitted") == 2, job
    said = f"unwatched=cannot listen to system calls: {os.strerror(errno.EBUSY)}\0"
    assert job.announced.endswith(said)
    assert "unwatched=" not in run(sandboxes, "true", ORDINARY).announced
    assert run(deaf, "stat -f . >/dev/null; echo ok", ROOT).out == "ok\n", "nobody listens"
    watch = subprocess.run([*below, "--", sandboxes.program, "watch"], capture_output=True, text=True, check=False)
    assert (watch.returncode, watch.stderr.split(": ")[1:2]) == (100, ["cannot listen to system calls"])
    assert subprocess.run([*sandboxes.enter, "--", sandboxes.program, "watch"], check=False).returncode == 0


@pytest.mark.parametrize("steps", [900, 200])
def test_no_job_runs_if_the_filter_is_too_long(tmp_path: Path, steps: int) -> None:
    """With 900 steps, a filter without listener has room.

    It must not take the place of the whole one.
    """
    program = tmp_path / "termite-sandbox"
    defined = ["-D_GNU_SOURCE", '-DTERMITE_VERSION="x"', f"-DSTEPS_MAX={steps}"]
    subprocess.run(["cc", "-std=gnu11", "-static", *defined, *NATIVE.rglob("*.c"), "-o", program], check=True)
    with small_base(program) as base:
        sandboxes = sandboxes_of(base, USERS[0])
        with pytest.raises(AssertionError, match="the filter of system calls is too long"):
            run(sandboxes, "echo not reached", ORDINARY)
        watch = subprocess.run(
            [*sandboxes.enter, "--", base / "termite-sandbox", "watch"], capture_output=True, text=True, check=False
        )
    assert (watch.returncode, watch.stderr) == (100, "termite-sandbox: the filter of system calls is too long\n")
