"""Building with worker processes gives the same bytes for any number of workers, killed or not."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sgloc.data.build.part import part_file
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards, build_task
from sgloc.data.manifest import Manifest, join_manifests, load_manifest
from sgloc.errors import ConfigError, DataError
from tests.builds import folder_bytes, write_categories
from tests.drawings import make_drawings, write_ndjson
from tests.patience import PATIENCE

NUM_PARTS = 8
# One part per file.
OPTIONS = BuildOptions(source_bytes_per_part=1, sketches_per_shard=512, sketches_per_block=128)
BUILD = """
import sys
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.errors import SglocError
options = BuildOptions(source_bytes_per_part=1, sketches_per_shard=512, sketches_per_block=128)
try:
    build_shards(sys.argv[1], sys.argv[2], options, num_workers=int(sys.argv[3]))
except SglocError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file per part."""
    folder = tmp_path_factory.mktemp("source")
    write_categories(folder, NUM_PARTS, 2500)
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files built by a single process."""
    folder = tmp_path_factory.mktemp("built") / "out"
    manifest = build_shards(str(source), str(folder), OPTIONS)
    assert manifest.num_accepted == NUM_PARTS * 2500
    assert manifest.rejected == {"malformed_json": NUM_PARTS}
    return folder_bytes(folder)


@contextmanager
def building(source: Path, out: Path, num_workers: int) -> Iterator[subprocess.Popen[str]]:
    """Yield a build in its own process group; the group is killed on exit if the build is still running."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(source), str(out), str(num_workers)],
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for a condition that must become true before the process ends."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        assert process is None or process.poll() is None, "the process ended before the condition became true"
        time.sleep(0.002)


def finished(out: Path) -> list[Path]:
    """Return the record files of the finished parts."""
    return sorted((out / "parts").glob("*.json"))


def begun(out: Path) -> list[Path]:
    """Return the temporary files of the parts in progress."""
    return list((out / "parts").glob("*.rejects.*"))


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the process ids of a build's workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def identities(out: Path, parts: list[Path]) -> dict[str, tuple[int, int]]:
    """Return inode and modification time of the shards of these parts."""
    numbers = {part.stem for part in parts}
    shards = [path for path in out.glob("*.tar") if path.stem.split("-")[1] in numbers]
    assert len(shards) >= 3 * len(parts)
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards}


@pytest.mark.parametrize("num_workers", [2, 3])
def test_the_number_of_workers_changes_no_byte(
    source: Path, built: dict[str, bytes], num_workers: int, tmp_path: Path
) -> None:
    calls: list[tuple[int, ...]] = []
    out = tmp_path / "out"
    build_shards(str(source), str(out), OPTIONS, num_workers=num_workers, progress=lambda *call: calls.append(call))
    assert folder_bytes(out) == built
    assert calls[-1] == (NUM_PARTS, NUM_PARTS, NUM_PARTS * 2501, NUM_PARTS)
    assert calls == sorted(calls)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_build_goes_on_without_building_again_what_is_built(
    source: Path, built: dict[str, bytes], num_workers: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with building(source, out, num_workers) as process:
        wait_until(lambda: len(finished(out)) >= 3, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    parts = finished(out)
    assert 3 <= len(parts) < NUM_PARTS
    with pytest.raises(DataError, match=r"manifest\.json does not exist"):
        load_manifest(str(out))
    before = identities(out, parts)
    # A part with a missing shard is not finished, and neither is one without its record.
    parts[0].unlink()
    next(out.glob(f"test-{parts[1].stem}-*.tar")).unlink()
    calls: list[tuple[int, ...]] = []
    build_shards(str(source), str(out), OPTIONS, num_workers=num_workers, progress=lambda *call: calls.append(call))
    assert calls[0] == (len(parts) - 2, NUM_PARTS, 2501 * (len(parts) - 2), len(parts) - 2)
    assert folder_bytes(out) == built
    after = identities(out, parts)
    kept = [name for name in before if name.split("-")[1] not in (parts[0].stem, parts[1].stem)]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert all(before[name] != after[name] for name in before if name not in kept if name in after)


def test_a_shard_that_is_being_written_has_no_shard_name(source: Path, built: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with building(source, out, 2) as process:
        while process.poll() is None:
            for path in out.glob("*.tar"):
                assert path.stat().st_size == len(built[path.name])
        assert process.returncode == 0
    assert folder_bytes(out) == built


def test_a_killed_worker_stops_the_build_which_then_goes_on(
    source: Path, built: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with building(source, out, 2) as process:
        wait_until(lambda: len(finished(out)) >= 1, process)
        workers = workers_of(process)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
    (sentence,) = error.splitlines()
    assert "a worker process died (signal SIGKILL) while it built part" in sentence
    assert "fewer workers if memory ran out" in sentence
    wait_until(lambda: not any(map(is_running, workers)))
    assert 1 <= len(finished(out)) < NUM_PARTS
    build_shards(str(source), str(out), OPTIONS, num_workers=2)
    assert folder_bytes(out) == built


def test_workers_do_not_outlive_a_killed_build(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for name in ("cat", "dog"):
        write_ndjson(tmp_path / "source" / f"{name}.ndjson", make_drawings(9, [name]))
        # Read first; opening a FIFO for reading blocks until somebody writes.
        os.mkfifo(tmp_path / "source" / f"{name}.bin")
    with building(tmp_path / "source", tmp_path / "out", 2) as process:
        wait_until(lambda: len(begun(tmp_path / "out")) == 2, process)
        workers = workers_of(process)
        assert len(workers) == 2
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(map(is_running, workers)))


def test_workers_say_nothing_when_a_build_is_killed(source: Path, tmp_path: Path) -> None:
    with building(source, tmp_path / "out", 2) as process:
        # Each of the two workers starts with one of the first two parts.
        wait_until(lambda: all(any((tmp_path / "out").glob(part_file(number, "*"))) for number in (0, 1)), process)
        os.kill(process.pid, signal.SIGKILL)
        _, error = process.communicate(timeout=PATIENCE)
    assert error == ""


def test_a_worker_whose_command_is_gone_ends_without_a_word() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    program = f"from sgloc.orphan import die_with_parent; die_with_parent({gone.pid}); print('goes on')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, id="Ctrl-C"), pytest.param(signal.SIGHUP, -signal.SIGHUP, id="closed terminal")],
)
def test_what_a_terminal_tells_all_ends_all_without_a_word(
    source: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    with building(source, out, 2) as process:
        wait_until(lambda: len(finished(out)) >= 1, process)
        workers = workers_of(process)
        os.killpg(process.pid, number)
        _, error = process.communicate(timeout=PATIENCE)
        assert (process.returncode, error) == (code, "")
    wait_until(lambda: not any(map(is_running, workers)))


def test_a_worker_that_is_told_alone_goes_on(source: Path, built: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with building(source, out, 2) as process:
        wait_until(lambda: len(finished(out)) >= 1, process)
        for worker in workers_of(process):
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(worker, number)
        _, error = process.communicate(timeout=PATIENCE)
        assert (process.returncode, error) == (0, "")
    assert folder_bytes(out) == built


def test_an_unreadable_file_stops_the_build_but_not_what_is_built(source: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for path in source.iterdir():
        (tmp_path / "source" / path.name).symlink_to(path)
    (tmp_path / "source" / "thing 5.npz").write_bytes(b"<html>not found</html>")
    out = tmp_path / "out"
    for num_workers in (1, 2):
        with pytest.raises(DataError, match=r"thing 5\.npz is not an npz file.* is it an error page\?"):
            build_shards(str(tmp_path / "source"), str(out), OPTIONS, num_workers=num_workers)
    names = [path.stem for path in finished(out)]
    assert names[:5] == [f"{number:05d}" for number in range(5)]
    assert "00005" not in names


def test_an_unfinished_build_is_not_mixed_with_another(source: Path, built: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def kill(num_built: int, *_: int) -> None:
        if num_built == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_shards(str(source), str(out), OPTIONS, progress=kill)
    before = folder_bytes(out)
    assert len(finished(out)) == 2
    others = [
        (str(source / "thing 1.ndjson"), OPTIONS),
        (str(source), BuildOptions(source_bytes_per_part=1)),
    ]
    for other, options in others:
        with pytest.raises(DataError, match=r"unfinished build of other sources or with other options.*overwrite it"):
            build_shards(other, str(out), options)
        assert folder_bytes(out) == before
    build_shards(others[0][0], str(out), OPTIONS, overwrite=True)
    assert set(folder_bytes(out)) < set(built)
    build_shards(str(source), str(out), OPTIONS, overwrite=True)
    assert folder_bytes(out) == built


def test_the_categories_of_an_unfinished_build_may_be_named_in_any_order(source: Path, tmp_path: Path) -> None:
    def kill(*_: int) -> None:
        raise KeyboardInterrupt

    first = BuildOptions(categories=["thing 1", "thing 0"])
    with pytest.raises(KeyboardInterrupt):
        build_shards(str(source), str(tmp_path / "out"), first, progress=kill)
    options = BuildOptions(categories=["thing 0", "thing 1", "thing 0"])
    manifest = build_shards(str(source), str(tmp_path / "out"), options)
    assert manifest.categories == ["thing 0", "thing 1"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_tasks_in_any_order_build_the_same(
    source: Path, built: dict[str, bytes], order: tuple[int, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcomes = [build_task(str(source), str(out), (index, 3), OPTIONS) for index in order]
    num_parts = [len(range(index, NUM_PARTS, 3)) for index in order]
    assert outcomes[:2] == [NUM_PARTS - built for built in itertools.accumulate(num_parts[:2])]
    assert outcomes[2] == load_manifest(str(out))
    assert folder_bytes(out) == built
    # Restarting a finished task, as a queue may do, changes nothing.
    assert build_task(str(source), str(out), (order[0], 3), OPTIONS) == outcomes[2]
    assert folder_bytes(out) == built
    with pytest.raises(DataError, match="already holds shards"):
        build_task(str(source / "thing 1.ndjson"), str(out), (0, 3), OPTIONS)


def test_more_tasks_than_parts(source: Path, built: dict[str, bytes], tmp_path: Path) -> None:
    outcomes = [build_task(str(source), str(tmp_path / "out"), (index, NUM_PARTS + 2), OPTIONS) for index in range(10)]
    assert outcomes[:NUM_PARTS] == [*range(NUM_PARTS - 1, 0, -1), outcomes[-1]]
    assert isinstance(outcomes[-1], Manifest)
    assert folder_bytes(tmp_path / "out") == built


def test_a_task_of_another_plan_is_refused_by_a_finished_folder(source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert build_task(str(source), out, (0, 1), OPTIONS) == build_task(str(source), out, (0, 1), OPTIONS)
    with pytest.raises(DataError, match="already holds shards"):
        build_task(str(source), out, (0, 1), dataclasses.replace(OPTIONS, recognized_only=True))


def test_tasks_at_the_same_time(source: Path, built: dict[str, bytes], tmp_path: Path) -> None:
    script = BUILD.replace("build_shards", "build_task").replace(
        "sys.argv[2], options, num_workers=int(sys.argv[3])", "sys.argv[2], (int(sys.argv[3]), 4), options"
    )
    words = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    tasks = [subprocess.Popen([*words, str(index)], env=environment) for index in range(4)]
    assert [task.wait(timeout=PATIENCE) for task in tasks] == [0, 0, 0, 0]
    assert folder_bytes(tmp_path / "out") == built


def test_two_tasks_that_end_at_the_same_time(
    source: Path, built: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert build_task(str(source), str(out), (0, 2), OPTIONS) == NUM_PARTS // 2
    ended: list[Manifest | int] = []

    def join_late(manifests: list[Manifest]) -> Manifest:
        # The other task has also seen all parts, and finishes first.
        monkeypatch.undo()
        ended.append(build_task(str(source), str(out), (0, 2), OPTIONS))
        return join_manifests(manifests)

    monkeypatch.setattr("sgloc.data.build.state.join_manifests", join_late)
    ended.append(build_task(str(source), str(out), (1, 2), OPTIONS))
    assert ended == [load_manifest(str(out))] * 2
    assert folder_bytes(out) == built


@pytest.mark.parametrize("task", [(3, 3), (-1, 3), (0, 0)])
def test_a_task_that_cannot_be(source: Path, task: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task must be from 0"):
        build_task(str(source), str(tmp_path / "out"), task)
    assert not (tmp_path / "out").exists()


def test_small_files_share_a_part_and_those_of_a_category_always_do(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee", "cat", "dog")):
        write_ndjson(tmp_path / f"{name}.ndjson", make_drawings(100, [name], first_key_id=100 * number))
    (tmp_path / "more").mkdir()
    write_ndjson(tmp_path / "more" / "bee.ndjson", make_drawings(100, ["bee"], first_key_id=1000))
    size = (tmp_path / "ant.ndjson").stat().st_size
    # ant is too small for its own part, so its part includes both files of bee.
    options = BuildOptions(source_bytes_per_part=size * 3 // 2)
    sources = [str(tmp_path), str(tmp_path / "more")]
    manifest = build_shards(sources, str(tmp_path / "out"), options)
    assert [source.name.removesuffix(".ndjson") for source in manifest.sources] == ["ant", "bee", "bee", "cat", "dog"]
    paths = [shard.path for shard in manifest.splits["train"].shards]
    assert paths == ["train-00000-00000.tar", "train-00001-00000.tar"]
    assert manifest.splits["train"].shards[0].num_sketches > 2 * manifest.splits["train"].shards[1].num_sketches * 0.6


def test_a_folder_that_other_processes_cannot_see(source: Path) -> None:
    with pytest.raises(ConfigError, match=r"other processes cannot access memory://"):
        build_shards(str(source), "memory://there", num_workers=2)
    with pytest.raises(ConfigError, match=r"workers must be 0 \(one per core\) or more, not -1"):
        build_shards(str(source), "memory://there", num_workers=-1)
