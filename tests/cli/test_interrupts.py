"""Ctrl-C and SIGTERM at any moment of start-up end a command with one line and their exit code."""

import os
import signal
import subprocess
import sys
import time
from importlib import import_module

import pytest
import tyro

from laughstore.cli.interrupts import signals_raised
from laughstore.cli.main import main

PRESS = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Press(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), NUMBER)

from laughstore.__main__ import main
MODULE, NUMBER = sys.argv.pop(1), int(sys.argv.pop(1))
sys.meta_path.insert(0, Press())
sys.exit(main())
"""
"""Runs a command that gets a signal while a module is imported."""
IMPORTS = "<frozen importlib._bootstrap>"
"""File name of code that imports."""
EVALUATE = ["evaluate", "no-run", "--device", "cpu"]
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def take_signals() -> None:
    """A shell that runs tests in the background has SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def assert_ended(code: int, out: str, err: str, number: int) -> None:
    assert (code, out) == (ENDS[signal.Signals(number)], ""), err
    assert err == ("laughstore: interrupted\n" if number == signal.SIGINT else "")


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("laughstore.cli.main", signal.SIGINT),
        ("laughstore.cli.evaluate", signal.SIGINT),
        pytest.param("torch._C", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("torch.fx", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_amid_an_import_ends_the_command(module, number, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PRESS, module, str(int(number)), *EVALUATE],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=take_signals,
    )
    assert_ended(done.returncode, done.stdout, done.stderr, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", list(ENDS))
@pytest.mark.parametrize("after_s", [0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6])
def test_a_signal_at_any_moment_of_start_up_ends_the_command(after_s, number, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, *EVALUATE],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_signals,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(after_s)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    if "no-run" in err:  # it was too late
        assert process.returncode == 1
    elif process.returncode != -signal.SIGTERM:  # before anything handles it, however slow that is
        assert_ended(process.returncode, out, err, number)


BEGIN = (
    "import sys; from laughstore.__main__ import main; print('begun', flush=True); sys.exit(main())"
)


def import_and_wait(name: str) -> None:
    with signals_raised():
        import_module(name)
        time.sleep(10)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_code_that_is_imported_cannot_swallow_a_signal(number, kind, tmp_path, monkeypatch):
    (tmp_path / "swallowing.py").write_text(
        "import os, time\n"
        "try:\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    time.sleep(0.05)\n"
        "except BaseException:\n"
        "    pass\n"
        "whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(kind):
            import_and_wait("swallowing")
        assert sys.modules["swallowing"].whole
    finally:
        signal.signal(signal.SIGINT, before)
        sys.modules.pop("swallowing", None)


def test_a_signal_that_still_waits_is_raised_at_the_end():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), signals_raised():
        exec(compile("import os, signal; os.kill(os.getpid(), signal.SIGINT)", IMPORTS, "exec"))
    signal.signal(signal.SIGINT, before)


def test_who_ignores_ctrl_c_goes_on_to_ignore_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals_raised():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN


def test_a_signal_amid_the_parsing_of_flags_is_no_wrong_flag(monkeypatch, capsys):
    def parse(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(tyro, "cli", parse)
    assert main(EVALUATE) == ENDS[signal.SIGTERM]
    assert capsys.readouterr().err == ""
