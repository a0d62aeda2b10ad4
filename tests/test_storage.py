"""`Storage`: a written file is complete or absent, and no other part of the package opens file systems."""

import ast
import contextlib
import errno
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sgloc
from sgloc.errors import DataError
from sgloc.storage import Retries, Storage, open_file, write_file, writing

FAST = Retries(num_attempts=3, first_delay=0.001)
PACKAGE = Path(sgloc.__file__).parent


@pytest.fixture(params=["disk", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty folder, on disk and in memory."""
    found = Storage(f"{'memory://' if request.param == 'memory' else ''}{tmp_path}/folder", FAST)
    found.make_folder()
    return found


def interrupted() -> Iterator[bytes]:
    """Yield content that fails half-way."""
    yield b"half"
    raise RuntimeError("power is gone")


def test_what_is_written_is_there_whole(storage: Storage) -> None:
    storage.write("file", [b"one ", b"two"])
    assert storage.content("file") == b"".join(storage.pieces("file")) == b"one two"
    assert (storage.read("file", 4, 7), storage.size("file"), storage.sizes()) == (b"two", 7, {"file": 7})
    storage.write("file", [b"three"])
    assert storage.content("file") == b"three"
    storage.remove_file("file")
    storage.remove_file("file")
    assert not storage.exists("file")


def test_what_is_interrupted_leaves_no_file(storage: Storage) -> None:
    with pytest.raises(RuntimeError, match="power is gone"):
        storage.write("file", interrupted())
    assert storage.sizes() == {}


def test_what_fails_is_told_even_where_nothing_can_be_removed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fail(_: object, path: str) -> None:
        tries.append(path)
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(storage.file_system), "rm_file", fail)
    with pytest.raises(RuntimeError, match="power is gone"):
        storage.write("file", interrupted())
    assert len(tries) == 1


def test_a_file_is_not_replaced_by_half_of_another(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("file", [b"whole"])
    with pytest.raises(RuntimeError, match="power is gone"):
        storage.write("file", interrupted())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"whole"}


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for name in ("mine-1", "other"):
        (tmp_path / f"{name}.{'0123' * 8}.partial").write_bytes(b"half")
    (tmp_path / "mine-2").touch()
    storage.remove_partial("", "mine-")
    assert sorted(name.partition(".")[0] for name in storage.sizes()) == ["mine-2", "other"]


def test_a_long_file_comes_in_pieces(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgloc.storage.folder._PIECE_BYTES", 3)
    storage.write("file", [b"12345678"])
    assert list(storage.pieces("file")) == [b"123", b"456", b"78"]


def failing(times: int) -> Callable[[], str]:
    """Return an action that fails this many times with a transient error."""
    left = [times]

    def act() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise TimeoutError
        return "done"

    return act


def test_retries_are_counted_and_logged(storage: Storage, logged: list[str]) -> None:
    assert storage.retry(failing(2), "the file", verb="written") == "done"
    assert storage.num_retries == len(logged) == 2
    assert logged[0].startswith("the file cannot be written (TimeoutError); attempt 2 of 3 follows in 0.0 s")
    with pytest.raises(TimeoutError):
        storage.retry(failing(3), "the file")
    assert storage.num_retries == 4


def test_a_file_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    write_file(f"{tmp_path}/new/folder/file", b"content")
    with open_file(f"file://{tmp_path}/new/folder/file") as stream:
        assert stream.read() == b"content"


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Limit files to three bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with (
        pytest.raises(
            DataError, match=rf"^cannot write shards to {tmp_path} \(.*too large.*\); choose a writable folder"
        ),
        full_disk(),
        writing(str(tmp_path), "shards"),
    ):
        storage.write("file", [b"1234"])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_wants_room() -> None:
    with (
        pytest.raises(DataError, match=r"^cannot write files to x \(.*device\); free some space, or choose"),
        writing("x"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_small_files_are_saved_with_their_folders(storage: Storage) -> None:
    storage.save({"one": b"1", "deep/er/two": b"2"})
    storage.save({"one": b"3"})
    assert (storage.content("one"), storage.content("deep/er/two")) == (b"3", b"2")


def test_small_files_that_cannot_be_saved_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=rf"^cannot write files to {tmp_path}/file \(.*\); choose a writable folder"):
        Storage(str(tmp_path / "file")).save({"one": b"1"})


def test_a_fault_of_the_program_is_not_taken_for_one_of_a_store(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing(str(tmp_path)):
        raise KeyError("a mistake")


def test_nothing_but_storage_knows_file_systems() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "fsspec" for name in names):
                found.add(path.relative_to(PACKAGE).parts[0])
    assert found == {"storage"}
