"""The surface: help is complete, the README names every command, nothing heavy is loaded early."""

import ast
import dataclasses
import inspect
import itertools
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from laughstore.cli.main import COMMANDS, module_of
from laughstore.timebase import Span

REPOSITORY = Path(__file__).parents[2]


def _flags_dataclass(command: str) -> type:
    return import_module(module_of(command))._Flags


def _leaves(kind: type) -> list[tuple[type, dataclasses.Field]]:
    """(owner, field) of every flag, through nested dataclasses."""
    hints = inspect.get_annotations(kind, eval_str=True)
    found = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and hint is not Span:
            found.extend(_leaves(hint))  # pyright: ignore[reportArgumentType]
        else:
            found.append((kind, field))
    return found


def _documented(kind: type) -> set[str]:
    """Names of a dataclass's fields that a docstring follows."""
    body = ast.parse(inspect.cleandoc(inspect.getsource(kind))).body[0].body  # pyright: ignore
    pairs = itertools.pairwise(body)
    return {
        item.target.id
        for item, after in pairs
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_names_and_explains_every_flag(command, run):
    code, out, _ = run(command, "--help")
    assert code == 0
    for owner, field in _leaves(_flags_dataclass(command)):
        hint = inspect.get_annotations(owner)[field.name]
        names = [getattr(item, "name", None) for item in getattr(hint, "__metadata__", ())]
        name = next(filter(None, names), field.name)  # tyro's own, as of --from, a keyword
        flag = f"--{name.replace('_', '-')}"
        positional = "Positional" in str(hint)
        assert positional or flag in out
        assert field.name in _documented(owner), f"{owner.__name__}.{field.name} has no help"


def test_overview_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command, summary in COMMANDS.items():
        assert command in out
        assert summary in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command):
    readme = (REPOSITORY / "README.md").read_text()
    assert f"| `laughstore {command}` |" in readme


def test_no_torch_is_loaded_by_imports_and_help():
    statements = [
        "import laughstore",
        "import laughstore, laughstore.store, laughstore.reading.rows, laughstore.labels",
        "from laughstore.cli.main import main; main(['--help'])",
        *(
            f"from laughstore.cli.main import main; main(['{command}', '--help'])"
            for command in COMMANDS
        ),
    ]
    look = (
        "import sys\n"
        "def look(statement):\n"
        "    heavy = {'torch', 'torchaudio', 'moshi', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "    assert not heavy, (statement, heavy)\n"
    )
    # One child for all, which looks after each: the first that loads something is named.
    check = look + "\n".join(f"{statement}\nlook({statement!r})" for statement in statements)
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: laughstore") > len(COMMANDS)


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("laughstore 0.")


def test_a_misspelt_command_gets_the_nearest_name(run):
    code, out, err = run("biuld")
    assert (code, out) == (2, "")
    assert err == "laughstore: no command 'biuld'; did you mean 'build'?\n"


def test_a_flag_of_the_earlier_scripts_gets_the_new_one(run):
    code, out, err = run("train", "--batch_size", "512")
    assert (code, out) == (2, "")
    assert "--global-batch" in err
    assert err.count("\n") == 1


def test_every_earlier_flag_points_to_flags_that_exist(run):
    from laughstore.cli.flags import EARLIER_FLAGS

    helps = "".join(run(command, "--help")[1] for command in ("build", "train", "evaluate"))
    for hint in EARLIER_FLAGS.values():
        for word in hint.replace(",", " ").split():
            if word.startswith("--"):
                assert word in helps


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--shards", "x"], "--out"),
        (["train", "--shards", "x", "--out", "y", "--lr", "0"], "lr is 0.0; it must be above 0"),
        (["train", "--shards", "x", "--out", "y", "--merge-gap", "3"], "3s (seconds) or 3f"),
        (["train", "--shards", "x", "--out", "y", "--global-batch", "100"], "global_batch"),
        (["train", "--shards", "x", "--out", "y", "--label", "noon:1f"], "detection"),
        (
            ["train", "--shards", "x", "--out", "y", "--preload", "gpu", "--device", "cpu", "-q"],
            "gpu",
        ),
        (["train", "--shards", "x", "--out", "y", "--preload", "disk"], "none"),
        (["build", "x", "--store", "y", "--rows", "3"], "rows is 3"),
        (["build", "x", "--store", "y", "--frobnicate"], "--frobnicate"),
        (["demo", "--seconds", "5"], "seconds is 5"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(arguments, said, run):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Error parsing" not in err
    assert err.count("\n") == 1


def test_a_file_that_hides_our_packages_is_named(tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('not ours')\n")
    done = subprocess.run(
        [sys.executable, "-m", "laughstore", "inspect", "store"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "train.py" in done.stderr
    assert "rename" in done.stderr
