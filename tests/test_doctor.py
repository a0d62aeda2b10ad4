"""`sgloc doctor`: every check reports its problem, on the facts of four ranks and in one real process."""

import json
import math
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sgloc.cli import main
from sgloc.doctor import shards as shards_module
from sgloc.doctor.examination import Examination, merged
from sgloc.doctor.finding import Finding
from sgloc.doctor.folder import Folder, judge_folder
from sgloc.doctor.machines import (
    Device,
    Process,
    judge_cuda,
    judge_devices,
    judge_limits,
    judge_processes,
    judge_shared_memory,
    judge_versions,
)
from sgloc.doctor.network import Network, bus_bandwidth, judge_network
from sgloc.doctor.shards import judge_manifests, judge_rates, judge_shards
from tests.checkpoints import flip_bit

GIB = 2**30
RANKS = Examination(0, ["n1", "n1", "n2", "n2"], 1.0, lambda _: None)
VERSIONS = {"torch": "2.13.0", "cuda": "12.8", "nccl": "2.27.3"}
GPU = Device("H100", 5e13, "GPU", 8, 80 * GIB, 79 * GIB)
PROCESS = Process(frozenset(range(8)), 4, 1e9)
NETWORK = Network(5e-5, 0.002, 0.001, True)
FOLDER = Folder(0.01, 0.5, True, 10**12)


def of_all(fact: Any, **of_rank_2: Any) -> dict[int, Any]:
    """Return the same fact for all ranks, with these changes on rank 2."""
    return {rank: replace(fact, **of_rank_2) if rank == 2 else fact for rank in range(4)}


def expect(found: Iterable[Finding], check: str, status: str, told: str) -> None:
    """Assert that one finding has this check, status and text, and that all others are ok."""
    findings = list(found)
    (finding,) = [one for one in findings if (one.check, one.status) == (check, status) and re.search(told, one.found)]
    assert bool(finding.advice) == (status != "ok")
    assert {one.status for one in findings if one is not finding} <= {"ok"}, findings


def test_versions() -> None:
    facts = dict.fromkeys(range(4), VERSIONS)
    expect(judge_versions(facts, RANKS), "versions", "ok", "torch 2.13.0")
    for older in ({**VERSIONS, "nccl": "2.26"}, {"torch": "2.13.0", "cuda": "12.8"}):
        told = rf"^rank 2 \(n2\) has nccl {older.get('nccl', 'none')}, others have nccl 2.27.3"
        expect(judge_versions({**facts, 2: older}, RANKS), "versions", "problem", told)


@pytest.mark.parametrize(
    ("cuda", "driver", "error", "status", "told"),
    [
        ("12.8", "570.86", None, "ok", "torch for CUDA 12.8, driver 570.86"),
        ("12.8", "570.86", "too old", "problem", "torch for CUDA 12.8: too old"),
        ("12.8", None, "no driver", "warning", "torch for CUDA 12.8: no driver"),
        (None, "570.86", None, "problem", "NVIDIA driver 570.86, but torch is built for the CPU"),
        (None, None, None, "ok", "no NVIDIA driver, and torch is built for the CPU"),
    ],
    ids=["all is well", "an old driver", "no driver", "torch for the CPU", "a CPU"],
)
def test_torch_and_the_driver(cuda: str | None, driver: str | None, error: str | None, status: str, told: str) -> None:
    expect([judge_cuda(cuda, driver, error)], "CUDA", status, f"^{told}")


def test_ranks_with_the_same_trouble_are_named_together() -> None:
    well, few = judge_limits(4096.0, math.inf, 4), judge_limits(200.0, math.inf, 4)
    assert merged(dict.fromkeys(range(4), well), RANKS) == [well]
    assert [one.found for one in merged({0: well, 1: few, 2: well, 3: judge_limits(100.0, math.inf, 4)}, RANKS)] == [
        "rank 1 (n1), rank 3 (n2): 200 open files"
    ]
    locked = judge_limits(4096.0, 65536.0, 4)
    other = merged({0: well, 1: few, 2: locked, 3: locked}, RANKS)
    assert [one.found.partition(":")[0] for one in other] == ["rank 1 (n1)", "rank 2 (n2), rank 3 (n2)"]
    assert {one.status for one in other} == {"problem"}


@pytest.mark.parametrize(
    ("changes", "check", "status", "told"),
    [
        ({}, "devices", "ok", "4 x H100 of 80 GiB; 8 visible to each; backend nccl"),
        ({"kind": "A100"}, "devices", "warning", r"^rank 2 \(n2\) has A100 of 80 GiB, others have H100 of 80 GiB"),
        (
            {"kind": "EPYC", "identity": "", "num_bytes": 0, "num_free_bytes": 0},
            "devices",
            "problem",
            r"^rank 2 \(n2\) has EPYC, others have H100 of 80 GiB",
        ),
        ({"num_free_bytes": 60 * GIB}, "devices", "warning", r"^rank 2 \(n2\): 60.0 of 80.0 GiB"),
        ({"identity": "GPU-0"}, "devices", "problem", r"^rank 0 \(n1\), rank 2 \(n2\) share one GPU"),
        ({}, "speed", "ok", "50,000 GFLOP/s"),
        ({"flops": 3e13}, "speed", "warning", r"but 30,000 on rank 2 \(n2\)"),
    ],
)
def test_devices(changes: dict[str, Any], check: str, status: str, told: str) -> None:
    facts = {rank: replace(GPU, identity=f"GPU-{rank}") for rank in range(4)}
    facts[2] = replace(facts[2], **changes)
    expect(judge_devices(facts, RANKS), check, status, told)


def test_shared_memory() -> None:
    for free, num_ranks, uses_nccl, status in (
        (4 * GIB, 2, True, "ok"),
        (100 * 2**20, 2, True, "problem"),
        (100 * 2**20, 1, True, "ok"),
        (100 * 2**20, 2, False, "ok"),
        (2**19, 1, False, "problem"),
    ):
        finding = judge_shared_memory(4 * GIB, free, num_ranks, uses_nccl=uses_nccl)
        expect([finding], "shared memory", status, f"^{free / 2**20:,.0f} of 4,096 MiB of /dev/shm free")


def test_limits() -> None:
    expect([judge_limits(math.inf, math.inf, 4)], "limits", "ok", "^inf open files")
    expect([judge_limits(200.0, math.inf, 4)], "limits", "problem", "^200 open files")
    expect([judge_limits(4096.0, 65536.0, 4)], "limits", "problem", "^InfiniBand, but only 64 KiB")


@pytest.mark.parametrize(
    ("changes", "check", "status", "told"),
    [
        ({}, "cores", "ok", "^8 threads of 2 processes on 8 cores of n2"),
        ({"num_threads": 5}, "cores", "warning", "^9 threads of 2 processes on 8 cores of n2: they compete"),
        ({}, "clocks", "ok", "^within 0.000 s"),
        ({"time": 1e9 + 3}, "clocks", "warning", r"^rank 2 \(n2\) is 3.0 s ahead of rank 0 \(n1\)"),
    ],
)
def test_processes(changes: dict[str, Any], check: str, status: str, told: str) -> None:
    expect(judge_processes(of_all(PROCESS, **changes), RANKS, uses_nccl=True), check, status, told)


def test_cores() -> None:
    for changes, told in (
        ({"num_threads": 1}, "most cores stay idle"),
        ({"cores": frozenset([0]), "num_threads": 1}, "^2 threads of 2 processes on 1 cores of n1"),
    ):
        facts = dict.fromkeys(range(4), replace(PROCESS, **changes))
        expect(judge_processes(facts, RANKS, uses_nccl=False), "cores", "warning", told)


@pytest.mark.parametrize(
    ("changes", "check", "status", "told"),
    [
        (
            {},
            "all-reduce",
            "ok",
            "nccl, 4 ranks: 32 bytes in 50 microseconds, 100 MB in 2.0 ms, .* bus bandwidth 75.00",
        ),
        ({"latency": 0.1}, "all-reduce", "warning", "32 bytes in 100,000 microseconds"),
        ({"seconds": 1.0}, "all-reduce", "warning", "bus bandwidth 0.15 GB/s"),
        ({"is_right": False}, "all-reduce", "problem", r"wrong sums on rank 2 \(n2\)"),
        (
            {"link_seconds": 0.01},
            "links",
            "warning",
            r"^1.68 GB/s from rank 1 \(n1\) to rank 2 \(n2\), 10.0 times slower",
        ),
    ],
)
def test_network(changes: dict[str, Any], check: str, status: str, told: str) -> None:
    expect(judge_network(of_all(NETWORK, **changes), RANKS, 25_000_000, "nccl"), check, status, told)


def test_bandwidths_are_those_of_nccl_tests() -> None:
    assert bus_bandwidth(8_000_000, 0.001, 8) == (8e9, 14e9)


@pytest.mark.parametrize(
    ("changes", "check", "status", "told"),
    [
        ({}, "run folder", "ok", "see each other's files within 0.01 s"),
        ({"seen_seconds": 2.0}, "run folder", "warning", "within 2.00 s"),
        ({"is_locked": False}, "locks", "warning", r"is not seen by rank 2 \(n2\)"),
        ({"is_locked": None}, "locks", "ok", "not supported here"),
        ({"num_free_bytes": 10**9}, "free space", "problem", "^1.0 GB free; a checkpoint .* takes 0.29"),
        ({"num_free_bytes": None}, "free space", "ok", "1,000.0 GB free"),
        ({"write_seconds": 100.0}, "writing", "warning", "2 MB/s, all ranks together: 119.0 s"),
    ],
)
def test_folders(changes: dict[str, Any], check: str, status: str, told: str) -> None:
    findings = judge_folder(of_all(FOLDER, **changes), RANKS, "runs/a", 242_000_000, 24_000_000)
    expect(findings, check, status, told)


def test_shards_of_many_ranks() -> None:
    facts = dict.fromkeys(range(4), ("abc", 1000, 10))
    assert list(judge_manifests(facts, RANKS)) == []
    other = judge_manifests({**facts, 2: ("def", 900, 10)}, RANKS)
    told = r"^rank 2 \(n2\) has shards of 900 training drawings \(def\), others have shards of 1,000 training drawings"
    expect(other, "manifest", "problem", told)
    without = judge_manifests({0: ("abc", 9, 0)}, RANKS)
    expect(without, "manifest", "problem", r"rank 0 \(n1\) has shards without validation drawings")
    many = dict.fromkeys(range(4), (["a.tar: it is missing", "b.tar: it is missing"], 0))
    findings = list(judge_shards(many, RANKS, "shards", 9))
    assert [finding.found for finding in findings][-2:] == ["rank 2 (n2): a.tar: it is missing", "3 more"]
    for slow, status in ((4000.0, "warning"), (6000.0, "warning"), (9000.0, "ok")):
        (finding,) = judge_rates({0: 13000.0, 1: 13000.0, 2: slow, 3: 13000.0}, RANKS)
        assert (finding.status, finding.found.endswith(f"slowest {slow:,.0f} on rank 2 (n2)")) == (status, True)


# One real process.

Examined = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Examined:
    """Return a function that runs the doctor and returns its exit code and findings."""
    monkeypatch.setattr(shards_module, "_STREAM_SECONDS", 0.1)

    def run(*words: object) -> tuple[int, list[dict[str, Any]]]:
        code = 0
        try:
            main(["doctor", "--json", "--device=cpu", *map(str, words)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        output = capsys.readouterr()
        assert output.err == ""
        return code, [json.loads(line) for line in output.out.splitlines()]

    return run


def problems(findings: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return check and text of the findings that are problems."""
    return [(finding["check"], finding["found"]) for finding in findings if finding["status"] == "problem"]


def test_all_is_well(examined: Examined, tiny_shards: str, tmp_path: Path) -> None:
    code, findings = examined("--data", tiny_shards, "--run", tmp_path / "run")
    assert (code, problems(findings)) == (0, [])
    assert [finding["check"] for finding in findings] == [
        *("nodes", "versions", "CUDA", "devices", "speed", "shared memory", "limits", "cores", "clocks", "all-reduce"),
        *("run folder", "locks", "free space", "writing", "shards", "data"),
    ]
    numbers: dict[str, float] = {}
    for finding in findings:
        numbers |= finding["numbers"]
    assert numbers["slowest_sketches_per_second"] > 100
    assert numbers["bytes_per_second"] > 10**5
    assert not list(tmp_path.iterdir())


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--device=cpu", "--run=/proc/nowhere"])
    rows = [line for line in capsys.readouterr().out.splitlines() if "problem" in line]
    assert len(rows) == 1
    assert re.search(r"run folder +│ problem │ rank 0 \(\S+\): .*No such file", rows[0])


def test_a_folder_that_cannot_be_written(examined: Examined, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for run_dir, told in ((tmp_path / "file/run", "Not a directory"), ("/proc/nowhere", "No such file")):
        code, findings = examined("--run", run_dir)
        ((check, found),) = problems(findings)
        assert (code, check) == (1, "run folder")
        assert told in found


def test_a_folder_without_room(examined: Examined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def full(path: str) -> Any:
        is_ours = str(path).startswith(("/dev/shm", str(tmp_path)))
        return SimpleNamespace(f_frsize=4096, f_blocks=10**6, f_bfree=100, f_bavail=100) if is_ours else real(path)

    monkeypatch.setattr(os, "statvfs", full)
    code, findings = examined("--run", tmp_path)
    assert code == 1
    assert [check for check, _ in problems(findings)] == ["shared memory", "free space"]
    assert not list(tmp_path.iterdir())


def test_a_url_is_written_as_well(examined: Examined) -> None:
    code, findings = examined("--run", "memory://runs/a")
    assert (code, problems(findings)) == (0, [])
    assert "free space" not in [finding["check"] for finding in findings]


def lose_manifest(shards: Path) -> str:
    (shards / "manifest.json").unlink()
    return "manifest.json does not exist"


def lose_shard(shards: Path) -> str:
    (shards / "valid-00000-00000.tar").unlink()
    return "valid-00000-00000.tar does not exist"


def cut_shard(shards: Path) -> str:
    path = shards / "test-00000-00000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    return "test-00000-00000.tar has "


def damage_shard(shards: Path) -> str:
    flip_bit(shards / "test-00000-00000.tar", 8 * 600)
    return "test-00000-00000.tar: block 0 .* is damaged"


@pytest.mark.parametrize("spoil", [lose_manifest, lose_shard, cut_shard, damage_shard])
def test_shards_that_are_not_whole(
    examined: Examined, tiny_shards: str, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    shards = Path(shutil.copytree(tiny_shards, tmp_path / "shards"))
    told = spoil(shards)
    code, findings = examined("--data", shards)
    ((check, found),) = problems(findings)
    assert (code, check) == (1, "shards")
    assert re.search(told, found)


def test_all_shards_are_looked_at_where_there_is_no_time_to_read_them(
    examined: Examined, tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "_WHOLE_SECONDS", -1.0)
    shards = Path(shutil.copytree(tiny_shards, tmp_path / "shards"))
    code, findings = examined("--data", shards)
    assert code == 0
    assert "all 3 exist; number verified in full by 1 rank(s): 0" in [finding["found"] for finding in findings]
    told = [lose_shard(shards), cut_shard(shards)]
    code, findings = examined("--data", shards)
    found = [found for _, found in problems(findings)]
    assert (code, len(found)) == (1, 2)
    assert all(any(sentence in one for one in found) for sentence in told)


def test_a_half_set_environment(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    code, findings = examined()
    assert code == 1
    assert problems(findings)[0][0] == "launcher"
    assert problems(findings)[0][1].startswith("LOCAL_RANK is not set although this looks like a process of torchrun")


def test_a_port_that_is_taken(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**variables, "MASTER_PORT": str(taken.getsockname()[1])}.items():
            monkeypatch.setenv(name, value)
        code, findings = examined()
    ((check, found),) = problems(findings)
    assert (code, check) == (1, "meeting")
    assert "cannot be served by rank 0" in found


def test_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--timeout=0"], "timeout must be from 1 to 1,000,000, not 0.0"),
        (["--run="], "run is not set; pass a folder or URL"),
        (["--dta=x"], "did you mean --data?"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["doctor", *words])
        assert stop.value.code == 2
        assert told in capsys.readouterr().err
