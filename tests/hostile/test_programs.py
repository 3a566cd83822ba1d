"""Nothing of a store is executed: pickles in every form and place, and tar members of any kind."""

import ast
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from webdataset.compat import WebDataset

import extract
import laughstore
import laughstore.webdataset
import train
from laughstore import CorruptData, open_store
from laughstore.integrity.verify import verify
from tests.hostile.crafting import Crafted, whole_store
from tests.hostile.reading import assert_refused, read_everything, read_samples
from tests.hostile.watching import watched


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_store(tmp_path_factory.mktemp("hostile") / "store")


@pytest.fixture
def crafted(template: Path, tmp_path: Path) -> Crafted:
    shutil.copytree(template, tmp_path / "store")
    return Crafted(tmp_path / "store")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def test_the_bomb_goes_off_where_pickles_are_read(canary):
    pickle.loads(pickle.dumps(Bomb(canary)))
    assert canary.exists()


def _programs(canary: Path) -> dict[str, bytes]:
    bomb = Bomb(canary)
    data = pickle.dumps(bomb)
    tensors, objects = io.BytesIO(), io.BytesIO()
    torch.save({"state": bomb}, tensors)
    np.save(objects, np.array([bomb], object), allow_pickle=True)
    script = f"import os; os.system('touch {canary}')".encode()
    return {
        "store.pkl": data,
        "index.pickle": data,
        "index-000001.columns.npy": objects.getvalue(),
        "train-000000.pyd": data,
        "model.pth": tensors.getvalue(),
        "features.pt": tensors.getvalue(),
        "frames.npz": data,
        "__init__.py": script,
        "conftest.py": script,
        "sitecustomize.py": script,
        "zarr.py": script,
        "setup.cfg": script,
        ".zarray": b'{"zarr_format":2,"filters":[{"id":"pickle"}],"shape":[1],"chunks":[1],'
        b'"dtype":"|O","compressor":null,"fill_value":null,"order":"C"}',
        ".zmetadata": b'{"zarr_consolidated_format":1,"metadata":{}}',
        "0.0": data,
        "__pycache__.pyc": data,
    }


def test_programs_that_lie_in_every_folder_are_left_alone(crafted, canary):
    folders = [crafted.path, *(item for item in crafted.path.rglob("*") if item.is_dir())]
    programs = _programs(canary)
    for folder in folders:
        for name, data in programs.items():
            (folder / name).write_bytes(data)
    assert len(folders) > 20
    with watched(crafted.path) as acts:
        read_everything(crafted.path)
        read_samples(crafted.path)
        verify(crafted.path, jobs=1)
    assert acts == []
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        "store.json",
        "generations/000001.json",
        "plans/000001.json",
        "shards/index.json",
        "shards/index-000001.json",
        "shards/index-000001.columns",
        "shards/train-000000.tar",
    ],
)
@pytest.mark.parametrize("kind", ["store.pkl", "model.pth", "index-000001.columns.npy"])
def test_programs_under_the_names_of_a_store_are_refused(crafted, canary, name, kind):
    target = crafted.path / name
    target.chmod(0o644)
    target.unlink()
    target.write_bytes(_programs(canary)[kind])
    with watched(crafted.path) as acts:
        report = verify(crafted.path, jobs=1) if name != "store.json" else None
    assert report is None or report.faults
    assert acts == []
    if name not in ("plans/000001.json", "shards/index.json", "generations/000001.json"):
        assert_refused(crafted.path, r"seal|bytes|store\.json|index")
    assert not canary.exists()


def _tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def _members_of(shard: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(shard) as archive:
        found = []
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found.append((member, file.read()))
        return found


@pytest.mark.parametrize(
    "suffix", ["pyd", "pkl", "pickle", "pth", "pt", "npy", "npz", "ten", "cls"]
)
def test_members_that_others_unpickle_are_refused_unopened(template, tmp_path, canary, suffix):
    members = _members_of(template / "shards" / "train-000000.tar")[1:3]
    key = members[0][0].name.rsplit(".", 1)[0]
    data = pickle.dumps(Bomb(canary))
    _tar(tmp_path / "s/shards/x.tar", [*members, (_member(f"{key}.{suffix}"), data)])
    names = ", ".join(sorted(["bf16", "json", suffix]))
    assert_refused(tmp_path / "s", f"has the members {names}", read=read_samples)
    _tar(tmp_path / "s/shards/x.tar", [(_member(f"{key}.{suffix}"), data)])
    assert_refused(tmp_path / "s", f"has the members {suffix}", read=read_samples)
    assert not canary.exists()


HOSTILE_KEYS = {
    "climbs": "../../canary/000000",
    "absolute": "/etc/cron.d/000000",
    "a scheme": "pipe:touch canary/a--b/000000",
    "another recording": "b-00000000/a--b/000000",
    "no folders": "000000",
    "right to left": "\u202ea/a--b/000000",
}


@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
def test_samples_under_other_names_are_refused(template, tmp_path, key):
    members = _members_of(template / "shards" / "train-000000.tar")[1:3]
    renamed = [
        (_member(f"{key}.{member.name.rsplit('.', 1)[1]}"), data) for member, data in members
    ]
    _tar(tmp_path / "s/shards/x.tar", renamed)
    assert_refused(tmp_path / "s", "that of another sample|has the members", read=read_samples)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_members_that_are_no_files_are_not_followed(template, tmp_path, kind):
    """webdataset skips them; what is left of the sample is refused."""
    (tmp_path / "secret").write_bytes(b"secret")
    about, data = _members_of(template / "shards" / "train-000000.tar")[1:3]
    link = (_member(data[0].name, kind, str(tmp_path / "secret")), b"")
    _tar(tmp_path / "s/shards/x.tar", [about, link])
    assert_refused(tmp_path / "s", "has the members json", read=read_samples)


def test_a_member_that_claims_a_hundred_gibibytes_is_not_allocated(template, tmp_path):
    about, frames = _members_of(template / "shards" / "train-000000.tar")[1:3]
    path = _tar(tmp_path / "s/shards/x.tar", [about, frames])
    data = bytearray(path.read_bytes())
    header = data.index(frames[0].name.encode())
    data[header + 124 : header + 136] = b"\x80" + (100 << 30).to_bytes(11, "big")
    data[header + 148 : header + 156] = b" " * 8
    checksum = sum(data[header : header + 512])
    data[header + 148 : header + 156] = b"%06o\0 " % checksum
    path.write_bytes(data)
    with watched(tmp_path / "s") as acts, pytest.raises((tarfile.ReadError, CorruptData)):
        read_samples(tmp_path / "s")
    assert acts == []


def test_a_sample_that_occurs_twice_is_refused_by_the_index(crafted):
    """Stock WebDataset yields a repeated key twice; we know the checksum of every block."""
    shard = crafted.path / "shards" / "train-000001.tar"
    data = bytearray(shard.read_bytes())
    data[512:18432] = (crafted.path / "shards/train-000000.tar").read_bytes()[512:18432]
    twins = [p for p in crafted.path.glob("features.zarr/*/*/*/c/1/0") if _same(p, shard)]
    for path in (shard, *twins):
        crafted.put(str(path.relative_to(crafted.path)), bytes(data))
    assert_refused(crafted.path, "crc32c")


def _same(a: Path, b: Path) -> bool:
    return a.read_bytes() == b.read_bytes()


def test_headers_that_lie_are_followed_by_nobody(crafted, canary):
    """Names and kinds of members changed, every digest made to match."""
    shard = crafted.path / "shards" / "train-000000.tar"
    data = bytearray(shard.read_bytes())
    header = 1536
    data[header : header + 100] = b"../../../canary".ljust(100, b"\0")
    data[header + 156 : header + 157] = tarfile.SYMTYPE
    data[header + 157 : header + 257] = b"/etc/passwd".ljust(100, b"\0")
    data[header + 148 : header + 156] = b" " * 8
    data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])
    twins = [p for p in crafted.path.glob("features.zarr/*/*/*/c/0/0") if _same(p, shard)]
    for path in (shard, *twins):
        crafted.put(str(path.relative_to(crafted.path)), bytes(data))
    with watched(crafted.path) as acts:
        verify(crafted.path, jobs=1)
        read_everything(crafted.path)
    assert acts == []
    assert not canary.exists()
    assert_refused(crafted.path, "has the members json", read=read_samples)


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for package in (laughstore, extract, train):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            name = f"{package.__name__}/{path.relative_to(package.__path__[0])}"
            yield name, ast.parse(path.read_text())


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "code"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_no_module_can_unpickle_or_run_text():
    found: list[str] = []
    num_modules = 0
    for name, tree in _modules():
        num_modules += 1
        for node in ast.walk(tree):
            where = f"{name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
                found.extend(f"{where} imports {item}" for item in names & FORBIDDEN_MODULES)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                are_errors = all(
                    alias.name.endswith("Error") for alias in node.names
                )  # run nothing
                if (node.module or "").split(".")[0] in FORBIDDEN_MODULES and not are_errors:
                    found.append(f"{where} imports {node.module}")
            elif isinstance(node, ast.Call):
                called = _dotted(node.func)
                keywords = {item.arg: ast.unparse(item.value) for item in node.keywords}
                if called in FORBIDDEN_CALLS:
                    found.append(f"{where} calls {called}")
                elif (
                    called in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False"
                ):
                    found.append(f"{where} calls np.load without allow_pickle=False")
                elif called == "torch.load" and keywords.get("weights_only") != "True":
                    found.append(f"{where} calls torch.load without weights_only=True")
                elif keywords.get("allow_pickle") == "True" or keywords.get("shell") == "True":
                    found.append(f"{where} calls {called} with {keywords}")
    assert num_modules > 50
    assert found == []


def test_the_walk_finds_what_it_looks_for():
    tree = ast.parse("import pickle\nnp.load(x)\neval('1')\nsubprocess.run(x, shell=True)")
    calls = [_dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert sorted(calls) == ["eval", "np.load", "subprocess.run"]


def test_stock_decoding_would_have_run_it(template, tmp_path, canary):
    """Why the decoder is ours: webdataset's own runs the pickle of a member."""
    members = _members_of(template / "shards" / "train-000000.tar")[1:3]
    key = members[0][0].name.rsplit(".", 1)[0]
    path = _tar(tmp_path / "x.tar", [*members, (_member(f"{key}.pyd"), pickle.dumps(Bomb(canary)))])
    pipeline: Any = WebDataset([str(path)], shardshuffle=False)
    list(pipeline.decode())
    assert canary.exists()
    assert open_store(template)
