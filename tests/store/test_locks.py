"""Locks of a store end with their process and keep others out while it lives."""

import errno
import fcntl
import logging
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from laughstore import layout, locks
from laughstore.errors import CorruptData, LaughstoreError
from laughstore.locks import StoreLocks, claim_number
from laughstore.progress import NoProgress


@contextmanager
def another_process(body: Callable[[StoreLocks], None], store: Path) -> Iterator[int]:
    """A child that opens the locks, runs `body`, says so, and waits to be killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(120)  # ends it, should this process die first
        try:
            with StoreLocks(store) as locks:
                body(locks)
                os.write(writer, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x"
        yield pid
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def claims(*numbers: int) -> Callable[[StoreLocks], None]:
    def body(locks: StoreLocks) -> None:
        assert all(locks.claim(number) for number in numbers)

    return body


held: list[AbstractContextManager[object]] = []
"""Keeps what a child holds from being collected, which would end it."""


def holds_shared(locks: StoreLocks) -> None:
    held.append(locks.shared())
    held[-1].__enter__()


def holds_alone(locks: StoreLocks) -> None:
    held.append(locks.exclusive())
    held[-1].__enter__()


def test_a_claim_of_another_process_is_refused_until_it_dies(tmp_path):
    with StoreLocks(tmp_path) as locks:
        with another_process(claims(3, claim_number(2, 7)), tmp_path):
            assert not locks.claim(3)
            assert not locks.claim(claim_number(2, 7))
            assert locks.claim(4)
            assert locks.claim(claim_number(1, 7))
        assert locks.claim(3)


def test_a_released_claim_is_free_for_another_process(tmp_path):
    with StoreLocks(tmp_path) as locks:
        assert locks.claim(1)
        locks.release(1)
        with another_process(claims(1), tmp_path):
            assert not locks.claim(1)


def test_in_one_process_a_claim_is_given_once_and_outlives_other_users_of_the_file(tmp_path):
    with StoreLocks(tmp_path) as locks:
        assert locks.claim(1)
        with StoreLocks(tmp_path) as others:
            assert not others.claim(1)
            assert others.claim(2)
        # Had the second one closed a descriptor of its own, the first claim would be gone.
        with pytest.raises(AssertionError), another_process(claims(1), tmp_path):
            pass
        with another_process(claims(2), tmp_path):
            pass


def test_the_store_is_held_by_many_or_by_one(tmp_path):
    with StoreLocks(tmp_path) as locks:
        with another_process(holds_shared, tmp_path):
            with locks.shared():
                pass
            with locks.exclusive(wait=False) as alone:
                assert not alone
        with locks.exclusive(wait=False) as alone:
            assert alone
        with another_process(holds_alone, tmp_path), locks.exclusive(wait=False) as alone:
            assert not alone


@pytest.mark.parametrize("lock", ["shared", "exclusive"])
def test_waiting_tells_why_once_and_ends_when_the_other_process_dies(lock, tmp_path):
    told: list[str] = []

    class Told(NoProgress):
        def message(self, text: str) -> None:
            told.append(text)

    with another_process(holds_alone, tmp_path) as pid, StoreLocks(tmp_path, Told()) as locks:
        kill_after(0.5, pid)
        began_s = time.monotonic()
        with locks.shared() if lock == "shared" else locks.exclusive():
            assert time.monotonic() - began_s > 0.4
    assert len(told) == 1
    assert "another process is" in told[0]


def test_waiting_can_be_interrupted(tmp_path):
    # A shell that runs tests in the background has SIGINT ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with another_process(holds_shared, tmp_path), StoreLocks(tmp_path) as locks:
        kill_after(0.3, os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), locks.exclusive():
            pass
        with locks.shared():
            pass
    signal.signal(signal.SIGINT, before)


def kill_after(delay_s: float, pid: int, number: int = signal.SIGKILL) -> None:
    killer = os.fork()
    if not killer:
        time.sleep(delay_s)
        os.kill(pid, number)
        os._exit(0)


def test_a_forked_child_cannot_use_its_parents_locks(tmp_path):
    with StoreLocks(tmp_path) as locks:
        assert locks.claim(1)
        pid = os.fork()
        if not pid:
            try:
                locks.claim(2)
            except AssertionError:
                with StoreLocks(tmp_path) as own:
                    os._exit(1 if own.claim(1) else 42)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
        # What the child closed was its own: the parent's claim stands.
        with pytest.raises(AssertionError), another_process(claims(1), tmp_path):
            pass


def test_without_locks_of_the_file_system_work_goes_on_with_one_warning(
    tmp_path, monkeypatch, caplog
):
    def lockf(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with caplog.at_level(logging.WARNING), StoreLocks(tmp_path) as locks:
        assert locks.claim(1)
        with locks.shared():
            pass
        with locks.exclusive() as alone:
            assert alone
    assert len(caplog.records) == 1
    assert "one process at a time" in caplog.text


def test_a_server_that_fails_while_a_lock_is_asked_for_is_told_with_the_file(tmp_path, monkeypatch):
    def lockf(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with StoreLocks(tmp_path) as locks, pytest.raises(OSError, match="Input") as caught:
        locks.claim(1)
    assert caught.value.filename == str(tmp_path / layout.LOCK)


def test_a_lock_that_is_not_given_where_others_were_is_an_error_and_not_held(
    tmp_path, monkeypatch, caplog
):
    def lockf(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with StoreLocks(tmp_path) as locks:
        assert locks.claim(1)
        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "lockf", lockf)
            for lock in (locks.shared(), locks.exclusive(), locks.exclusive(wait=False)):
                with pytest.raises(LaughstoreError, match="gives no lock any more"), lock:
                    pass
            with pytest.raises(LaughstoreError, match="run the same command again"):
                locks.claim(2)
            assert not caplog.records
            locks.release(1)  # that it could not be given up hides no error of a body
            assert "could not be given up" in caplog.text
        # None was taken for held, and the first one is still kept from others.
        assert locks.claim(2)
        with locks.exclusive(wait=False) as alone:
            assert alone
        with pytest.raises(AssertionError), another_process(claims(1), tmp_path):
            pass
    with another_process(claims(1, 2), tmp_path):
        pass


def test_the_lock_file_is_empty_and_never_a_link(tmp_path):
    with StoreLocks(tmp_path) as locks:
        assert locks.claim(1)
    assert (tmp_path / layout.LOCK).read_bytes() == b""
    other = tmp_path / "other"
    other.mkdir()
    (other / layout.LOCK).symlink_to(tmp_path / "made elsewhere")
    with pytest.raises(CorruptData, match="is a link"):
        StoreLocks(other)
    assert not (tmp_path / "made elsewhere").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket"])
def test_what_is_no_file_is_not_taken_for_the_lock(tmp_path, kind):
    path = tmp_path / layout.LOCK
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    before = path.lstat().st_ino
    with pytest.raises(CorruptData, match="move it away"):
        StoreLocks(tmp_path)
    assert path.lstat().st_ino == before


def test_a_second_close_leaves_the_file_to_the_others(tmp_path):
    ours, theirs = StoreLocks(tmp_path), StoreLocks(tmp_path)
    ours.close()
    ours.close()
    try:
        assert theirs.claim(3)
        with another_process(lambda locks: os._exit(0) if locks.claim(3) else None, tmp_path):
            pass
    finally:
        theirs.close()


def test_a_child_forked_while_locks_are_opened_opens_its_own(tmp_path):
    with locks._guard:
        pid = os.fork()
        if not pid:
            signal.alarm(10)  # kills it when it hangs
            try:
                with StoreLocks(tmp_path) as own:
                    os._exit(0 if own.claim(1) else 1)
            finally:
                os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
