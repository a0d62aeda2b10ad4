"""Start and end of programs in real processes: exit codes of user, transient and internal errors, and odd streams."""

import copy
import errno
import json
import os
import re
import shlex
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sgloc
from sgloc.errors import DataError
from sgloc.faults import as_told, exit_code_of
from tests.patience import PATIENCE
from tests.train.launch import tiny_options

# Runs commands one after another in one process; writes exit codes to a file, because standard output may be closed.
SEVERAL = """
import json, sys
from pathlib import Path
from sgloc.cli import main
codes = []
for words in json.loads(Path(sys.argv[1]).read_text("utf-8")):
    try:
        main(words)
        codes.append(0)
    except SystemExit as stop:
        codes.append(stop.code)
Path(sys.argv[2]).write_text(json.dumps(codes))
"""
# A program with a bug: {fault} becomes the body of the function that reads manifests.
_BROKEN = """
import os, sys
import sgloc.data.manifest
from sgloc.cli import main
def load_manifest(folder):
    {fault}
sgloc.data.manifest.load_manifest = load_manifest
main(["shards", "stats", *sys.argv[1:]])
"""
_OWN_FILE = Path(sgloc.__file__).with_name("nothing.txt")


def run(*command: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        pytest.param(
            ["shards", "stats", "/nothing"],
            2,
            "sgloc shards stats: /nothing/manifest.json does not exist",
            id="mistake",
        ),
        pytest.param(
            ["checkpoint", "list", "http://127.0.0.1:9/run"],
            1,
            "sgloc checkpoint list: the store cannot be used (ClientConnectorError: ",
            id="store",
        ),
    ],
)
def test_a_mistake_is_told_from_what_may_pass(words: list[str], code: int, sentence: str) -> None:
    done = run("-m", "sgloc", *words)
    assert (done.returncode, done.stdout) == (code, "")
    *retries, last = done.stderr.splitlines()
    assert last.startswith(sentence)
    assert all(re.search(r"cannot be read .*; attempt \d of 3 follows in", line) for line in retries)
    assert len(retries) == (2 if code == 1 else 0)


def test_a_full_disk_may_pass(tiny_shards: str) -> None:
    command = [sys.executable, "-m", "sgloc", "shards", "stats", tiny_shards]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert done.stderr == "sgloc shards stats: [Errno 28] No space left on device; free some space, then start again\n"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        pytest.param("return {}['splits']", "KeyError: 'splits'", id="key"),
        pytest.param("os.read(-1, 1)", "OSError: [Errno 9] Bad file descriptor", id="descriptor"),
        pytest.param("raise OSError('wrong')", "OSError: wrong", id="nameless"),
    ],
)
def test_a_fault_of_the_program_says_so(fault: str, told: str) -> None:
    program = _BROKEN.format(fault=fault)
    done = run("-c", program, "shards")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"sgloc shards stats: this is a bug in sgloc, not a user error: {told}, in sgloc/cli/data.py, "
        f"line {done.stderr.split('line ')[1].split(',')[0]}, stats; please report it with the traceback, which "
        "SGLOC_DEBUG=1 shows\n"
    )
    for asked in (run("-c", program, "shards", "--debug"), run("-c", program, "shards", SGLOC_DEBUG="1")):
        assert asked.returncode == 3
        assert asked.stderr.startswith("Traceback (most recent call last):\n")
        assert asked.stderr.endswith(done.stderr)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(MemoryError(), 1, id="memory"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory"), 1, id="memory of a device"),
        pytest.param(RuntimeError("CUDA error: uncorrectable ECC error encountered"), 1, id="device"),
        pytest.param(RuntimeError("CUDA error: device-side assert triggered"), 3, id="assertion on a device"),
        pytest.param(torch.distributed.DistNetworkError("no route"), 1, id="collective"),
        pytest.param(OSError(errno.EIO, "Input/output error", "/mnt/a"), 1, id="disk"),
        pytest.param(OSError(errno.EDQUOT, "Disk quota exceeded"), 1, id="quota"),
        pytest.param(TimeoutError(), 1, id="time-out"),
        pytest.param(ssl.SSLError(1, "certificate verify failed"), 2, id="certificate"),
        pytest.param(PermissionError(errno.EACCES, "Permission denied", "/root/a"), 2, id="permission"),
        pytest.param(FileNotFoundError("bucket/a"), 2, id="missing in a store"),
        pytest.param(FileNotFoundError(errno.ENOENT, "No such file", str(_OWN_FILE)), 3, id="file of the package"),
        pytest.param(OSError(errno.EBADF, "Bad file descriptor"), 3, id="descriptor"),
        pytest.param(RuntimeError("size mismatch"), 3, id="shape"),
        pytest.param(AssertionError(), 3, id="assertion"),
    ],
)
def test_exceptions_have_exit_codes(error: Exception, code: int) -> None:
    assert as_told(error).exit_code == code
    if isinstance(error, OSError | MemoryError):
        # An error of ours with this cause has the same exit code, except 3: whoever wraps an error understands it.
        ours = DataError("cannot be read")
        ours.__cause__ = error
        assert exit_code_of(ours) == min(code, 2)
        # The code survives a copy to another process, which drops the cause.
        copied = copy.copy(ours)
        assert (copied.exit_code, copied.__cause__) == (min(code, 2), None)


@pytest.mark.parametrize("program", ["sgloc", "launch.local", "launch.slurm", "benchmarks.soak"])
def test_every_program_takes_debug(program: str) -> None:
    done = run("-m", program, "--debug", "--help")
    assert done.returncode == 0, done.stderr


def test_a_fault_in_a_process_that_builds_is_told_once(tmp_path: Path) -> None:
    sample = ["sample", "--out", str(tmp_path / "npz"), "--train=2", "--valid=1", "--test=1"]
    (tmp_path / "words").write_text(json.dumps([sample]))
    assert run("-c", SEVERAL, tmp_path / "words", tmp_path / "codes").returncode == 0
    words = ("-m", "sgloc", "shard", "--source", tmp_path / "npz", "--out", tmp_path / "out", "--workers=2")
    done = run(*words, "--debug", SGLOC_FAILPOINT="part:fault:0")
    told = "sgloc shard: this is a bug in sgloc, not a user error: KeyError: 'part', in sgloc/failpoint"
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(told)
    # The traceback reaches into the build worker.
    assert "in failpoint\n" in done.stderr


def test_a_fault_of_a_rank_is_not_started_again(tmp_path: Path, tiny_shards: str) -> None:
    words = ("--processes=2", "train", *tiny_options(tmp_path / "run", tiny_shards), "--train.num_steps=4")
    done = run("-m", "launch.local", *words, "--train.global_batch=8", SGLOC_FAILPOINT="step:fault:2:1")
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("starting from scratch in ") == 1
    assert done.stderr.count("this is a bug in sgloc, not a user error: KeyError: 'step', in sgloc/") == 1


def test_a_verdict_counts_whatever_the_launcher_sees_of_its_rank(tmp_path: Path, tiny_shards: str) -> None:
    verdict = tmp_path / "verdict"
    verdict.write_text("3")
    words = ("--processes=2", "train", *tiny_options(tmp_path / "run", tiny_shards), "--train.num_steps=4")
    faults = {"SGLOC_FAILPOINT": "step:kill:2:1", "SGLOC_VERDICT": str(verdict)}
    done = run("-m", "launch.local", *words, "--train.global_batch=8", **faults)
    assert (done.returncode, done.stderr.count("starting from scratch in ")) == (3, 1), done.stderr


def test_torchrun_starts_nothing_again_that_would_fail_again(tmp_path: Path) -> None:
    verdict = tmp_path / "verdict"
    mistake = run("-m", "sgloc", "traim", SGLOC_VERDICT=str(verdict))
    assert (mistake.returncode, verdict.read_text()) == (2, "2")
    restarted = {"SGLOC_VERDICT": str(verdict), "TORCHELASTIC_RESTART_COUNT": "1"}
    again = run("-m", "sgloc", "--version", **restarted)
    assert (again.returncode, again.stdout, again.stderr) == (2, "", "")
    verdict.unlink()
    assert run("-m", "sgloc", "--version", **restarted).returncode == 0
    assert not verdict.exists()


_STREAMS = {
    "no-output": (">&-", {}),
    "no-error": ("2>&-", {}),
    "none": ("<&- >&- 2>&-", {}),
    "ascii": ("", {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}),
}


@pytest.mark.parametrize("streams", _STREAMS)
def test_every_command_works_with_streams_of_every_kind(tmp_path: Path, tiny_shards: str, streams: str) -> None:
    how, environment = _STREAMS[streams]
    folder = f"{tmp_path}/zeichnüngen"
    run_dir = Path(folder, "run")
    training = [*tiny_options(run_dir, tiny_shards), "--train.num_steps=1", "--train.global_batch=4"]
    commands = {
        "--help": 0,
        "nöthing": 2,
        "sample --train=2 --valid=1 --test=1 --out F/npz": 0,
        "shard --source F/npz --out F/shards --workers=1": 0,
        "shards verify F/shards --workers=1": 0,
        "shards stats F/shards": 0,
        "shards stats F/nothing": 2,
        shlex.join(["train", *training]): 0,
        "checkpoint list F/run": 0,
        "checkpoint verify F/run": 0,
        "checkpoint show F/run": 0,
        "checkpoint export F/run --out F/model": 0,
        "generate --checkpoint F/model --data F/shards --out F/drawn --count=2 --max_points=9": 0,
        "evaluate --checkpoint F/run --data F/shards --out F/measured --resamples=9 --max_points=9": 0,
        "report F/run --examples=1 --count=4": 0,
    }
    words = [[word.replace("F/", f"{folder}/") for word in shlex.split(line)] for line in commands]
    (tmp_path / "words").write_text(json.dumps(words))
    line = f'exec "$@" {how}'
    command = [sys.executable, "-c", SEVERAL, str(tmp_path / "words"), str(tmp_path / "codes")]
    done = subprocess.run(
        ["/bin/sh", "-c", line, "sh", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "codes").read_text()) == list(commands.values()), done.stderr.decode(errors="replace")
    # Output to closed streams must not end up in a file that reused their descriptors.
    assert json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])["event"] == "train"
