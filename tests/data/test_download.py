"""Downloads from real servers, with and without faults."""

import base64
import dataclasses
import gzip
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sgloc.data.build.fetch import fetch
from sgloc.errors import DataError
from sgloc.storage import Retries
from sgloc.storage.download import RANGE_BYTES, download
from tests.faulty import Fault, FaultyProxy, Plan
from tests.patience import PATIENCE
from tests.servers import Bucket, Nginx

# A little more than two ranges, starting like an npz file.
CONTENT = b"PK\x03\x04" + random.Random(0).randbytes(2 * RANGE_BYTES + 12345)
OTHER = b"PK\x03\x04" + random.Random(1).randbytes(len(CONTENT) - 4)
FAST = Retries(num_attempts=3, first_delay=0.01, longest_delay=0.02, timeout=PATIENCE)
# How long to wait for a server that stalls. A busy machine needs more than a second for an answer.
STALL_SECONDS = 3.0

Faulty = Callable[[str, Plan], FaultyProxy]


class Site:
    """A folder behind nginx and a faulty proxy, and the target path of a test's download."""

    def __init__(self, nginx: Nginx, faulty: Faulty, folder: Path, told: list[str]) -> None:
        self.nginx, self.folder, self.told = nginx, folder / "site", told
        self.folder.mkdir()
        self.put(CONTENT)
        self.proxy = faulty(nginx.serve(self.folder), [])
        self.url = f"{self.proxy.url}/cat.npz"
        self.path = folder / "cat.npz"
        self.part, self.sidecar = folder / "cat.npz.part", folder / "cat.npz.part.json"

    def put(self, content: bytes, name: str = "cat.npz") -> None:
        """Write a file or its next version."""
        path = self.folder / f"{name}.new"
        path.write_bytes(content)
        # nginx derives the ETag from the length and the modification time in seconds.
        os.utime(path, (0, zlib.crc32(content)))
        path.replace(self.folder / name)

    def lose_ranges(self) -> None:
        """Switch to a server without support for range requests."""
        self.proxy.upstream = self.nginx.serve(self.folder, ranges=False).removeprefix("http://")

    def download(self, url: str = "", timeout: float = FAST.timeout) -> bytes:
        """Download a file and return its content."""
        download(url or self.url, str(self.path), retries=dataclasses.replace(FAST, timeout=timeout))
        assert not self.part.exists()
        assert not self.sidecar.exists()
        return self.path.read_bytes()

    def interrupt(self, num_ranges: int = 2) -> None:
        """Make a download fail permanently after this many ranges."""
        self.path.unlink(missing_ok=True)
        self.proxy.follow(lambda number: Fault("truncate") if number >= num_ranges else None)
        with pytest.raises(DataError, match="after 3 attempts"):
            download(self.url, str(self.path), retries=FAST)
        assert not self.path.exists()
        assert self.part.read_bytes() == (self.folder / "cat.npz").read_bytes()[: num_ranges * RANGE_BYTES]
        self.proxy.follow([])
        self.told.clear()

    def names(self) -> list[str]:
        """Return the names of the files in the target folder."""
        return sorted(path.name for path in self.path.parent.iterdir())


@pytest.fixture
def site(nginx: Nginx, faulty: Faulty, tmp_path: Path, logged: list[str]) -> Site:
    """A site that serves CONTENT as cat.npz."""
    return Site(nginx, faulty, tmp_path, logged)


def test_a_file_comes_whole(site: Site) -> None:
    assert site.download() == CONTENT
    assert site.told == []
    assert site.proxy.num_bytes == len(CONTENT)
    assert site.names() == ["cat.npz", "site"]


def test_what_was_there_is_replaced(site: Site) -> None:
    site.path.write_bytes(b"old")
    assert site.download() == CONTENT


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503),
        Fault("drop"),
        Fault("reset", after=100_000),
        Fault("truncate", after=3_000_000),
        Fault("stall", after=3_000_000),
    ],
    ids=["status-503", "drop", "reset", "truncate", "stall"],
)
@pytest.mark.parametrize("number", [0, 1])
def test_what_passes_is_waited_out(site: Site, fault: Fault, number: int) -> None:
    # aiohttp itself retries once when a connection closes before the response.
    site.proxy.follow([None] * number + [fault] * (2 if fault.kind == "drop" else 1))
    assert site.download(timeout=STALL_SECONDS if fault.kind == "stall" else PATIENCE) == CONTENT
    (sentence,) = site.told
    assert sentence.startswith(f"{site.url} cannot be read (")
    # Only the lost bytes are requested again; the rest is the body of the error page.
    assert site.proxy.num_bytes < len(CONTENT) + fault.after + 100


def test_what_does_not_pass_leaves_what_came(site: Site) -> None:
    site.interrupt()
    assert site.download() == CONTENT
    assert site.proxy.num_bytes == len(CONTENT) - 2 * RANGE_BYTES


_DOWNLOAD = """
import sys
from sgloc.storage.download import download
download(sys.argv[1], sys.argv[2])
"""


def test_a_killed_download_goes_on(site: Site) -> None:
    site.proxy.follow([None, Fault("stall", after=3_000_000)])
    with subprocess.Popen([sys.executable, "-c", _DOWNLOAD, site.url, str(site.path)]) as process:
        try:
            end = time.monotonic() + PATIENCE
            while not (site.part.exists() and site.part.stat().st_size > RANGE_BYTES):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.01)
            with pytest.raises(DataError, match="another process is downloading to"):
                site.download()
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert not site.path.exists()
    site.proxy.follow([])
    assert site.download() == CONTENT
    assert site.proxy.num_bytes == len(CONTENT) - RANGE_BYTES


def test_a_download_that_lacks_only_its_name_is_compared_once_more(site: Site) -> None:
    for content in (CONTENT, OTHER):
        site.interrupt()
        site.part.write_bytes(CONTENT)
        site.put(content)
        assert site.download() == content
        site.put(CONTENT)


def test_a_whole_number_of_ranges_is_no_exception(site: Site) -> None:
    content = OTHER[: 2 * RANGE_BYTES]
    site.put(content)
    assert site.download() == content
    site.interrupt(num_ranges=1)
    # The complete content is there; only the final rename is missing.
    site.part.write_bytes(content)
    assert site.download() == content
    assert site.proxy.num_bytes == RANGE_BYTES


@pytest.mark.parametrize(
    "content",
    [OTHER, OTHER[:-1], CONTENT[:-1], CONTENT + b"more", OTHER[:100]],
    ids=["other", "other-shorter", "shorter", "longer", "much-shorter"],
)
def test_a_file_that_has_changed_meanwhile_is_started_over(site: Site, content: bytes) -> None:
    site.interrupt()
    site.put(content)
    assert site.download() == content
    (sentence,) = site.told
    assert "changed on the server" in sentence


def test_a_file_that_changes_between_two_ranges_is_started_over(site: Site) -> None:
    site.proxy.follow(lambda number: site.put(OTHER) if number == 1 else None)
    assert site.download() == OTHER


def test_a_file_that_never_rests_is_given_up(site: Site) -> None:
    site.proxy.follow(lambda number: site.put((CONTENT, OTHER)[number % 2]))
    with pytest.raises(DataError, match=r"started over 3 times: the file changed on the server"):
        site.download()


@pytest.mark.parametrize(
    "sidecar",
    ["", "[]", "{}", '{"url": 3}', '{"url": "http://elsewhere/cat.npz"}', None],
    ids=["empty", "list", "no-field", "number-as-url", "other-url", "none"],
)
def test_a_part_of_nobody_knows_what_is_started_over(site: Site, sidecar: str | None) -> None:
    site.part.write_bytes(OTHER)
    if sidecar is not None:
        site.sidecar.write_text(sidecar)
    assert site.download() == CONTENT


def test_a_part_of_another_url_is_started_over(site: Site) -> None:
    site.put(OTHER, "dog.npz")
    # Same length and time: the server gives both the same ETag.
    for name in ("cat.npz", "dog.npz"):
        os.utime(site.folder / name, (0, 10**9))
    site.interrupt()
    assert site.download(site.url.replace("cat", "dog")) == OTHER


def test_a_server_without_ranges_streams_the_file(site: Site) -> None:
    site.lose_ranges()
    assert site.download() == CONTENT
    site.proxy.follow([Fault("truncate", after=RANGE_BYTES + 1)])
    assert site.download() == CONTENT
    assert site.proxy.num_bytes == len(CONTENT) + RANGE_BYTES + 1


def test_a_server_that_no_longer_knows_ranges_starts_over(site: Site) -> None:
    site.interrupt()
    site.lose_ranges()
    assert site.download() == CONTENT
    assert site.proxy.num_bytes == len(CONTENT)


def test_a_content_is_compared_with_the_md5_that_its_server_tells(site: Site, nginx: Nginx, faulty: Faulty) -> None:
    digests = {name: base64.b64encode(hashlib.md5(text).digest()) for name, text in (("is", CONTENT), ("not", OTHER))}
    hashes = {name: f"crc32c=AAAAAA==,md5={digest.decode()}" for name, digest in digests.items()}
    assert site.download(f"{nginx.serve(site.folder, headers={'x-goog-hash': hashes['is']})}/cat.npz") == CONTENT
    assert site.told == []
    with pytest.raises(DataError, match="started over 3 times: the download is damaged: its MD5 differs"):
        site.download(f"{nginx.serve(site.folder, headers={'x-goog-hash': hashes['not']})}/cat.npz")
    # With gzip encoding the MD5 is that of the compressed file, so it is not compared.
    packed = {"x-goog-hash": hashes["not"], "x-goog-stored-content-encoding": "gzip"}
    assert site.download(f"{nginx.serve(site.folder, headers=packed)}/cat.npz") == CONTENT


PAGE = b"<!DOCTYPE html><html><body>come back later</body></html>"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("cat.npz", PAGE, r"is not a zip archive but begins with .*<!DOCTYPE html>.* \(probably an error page"),
        ("cat.npz", b"\x93NUMPY and so on", r"is not a zip archive but begins with .* \(probably another format"),
        ("cat.ndjson", PAGE, r"is not ndjson but begins with .* \(probably an error page"),
        ("cat.ndjson", gzip.compress(b'{"word": "cat"}', mtime=0), r"is not ndjson but .* \(probably another format"),
        ("cat.bin", PAGE, r"is not a binary file of drawings but begins with .* \(probably an error page"),
        ("cat.bin", b'{"error": "no quota is left"}', "is not a binary file of drawings but"),
        ("cat.ndjson.gz", PAGE, r"is not a gzip file but begins with .* \(probably an error page"),
        ("cat.npz", b"", "is empty"),
        ("cat.bin", b"", "is empty"),
    ],
    ids=["page", "npy", "page as text", "gzip", "page as bytes", "json", "page as gzip", "empty", "empty bytes"],
)
def test_what_is_not_what_it_claims_is_told(site: Site, name: str, content: bytes, sentence: str) -> None:
    site.put(content, name)
    path = site.path.with_name(name)
    with pytest.raises(DataError, match=sentence):
        fetch(site.url.replace("cat.npz", name), str(path), FAST)
    assert site.names() == ["site"]
    assert site.told == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cat.ndjson", b'{"word": "cat"}\n'),
        ("cat.ndjson.gz", gzip.compress(b'{"word": "cat"}', mtime=0)),
        # A binary drawing whose key_id starts with the byte of "<".
        ("cat.bin", b"<ht\x00\x00\x12\x10\x00US\x01" + bytes(30)),
        ("manifest.json", b"{}"),
        ("nothing", b""),
    ],
    ids=["ndjson", "gzip", "binary-like-a-page", "json", "empty"],
)
def test_what_is_what_it_claims_comes(site: Site, name: str, content: bytes) -> None:
    site.put(content, name)
    path = site.path.with_name(name)
    fetch(site.url.replace("cat.npz", name), str(path), FAST)
    assert path.read_bytes() == content
    assert site.told == []


@pytest.mark.parametrize(("status", "sentence"), [(404, "does not exist"), (403, "HTTP status 403 .*permissions")])
def test_what_is_missing_or_forbidden_is_told_at_once(site: Site, status: int, sentence: str) -> None:
    site.proxy.follow(lambda _: Fault("status", status=status))
    with pytest.raises(DataError, match=sentence):
        site.download()
    assert (site.proxy.num_requests, site.told) == (1, [])


def test_a_path_that_cannot_be_written_is_told(site: Site) -> None:
    for path in (site.path.parent / "missing" / "cat.npz", site.folder / "cat.npz" / "cat.npz"):
        with pytest.raises(
            DataError, match=r"cannot write the download to .*cat\.npz \(.*N.*\); choose a writable folder"
        ):
            download(site.url, str(path), retries=FAST)


def test_a_full_disk_is_told_and_what_came_is_kept(site: Site) -> None:
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({RANGE_BYTES + 5},) * 2)\n"
    ignored = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    command = [sys.executable, "-c", limited + ignored + _DOWNLOAD, site.url, str(site.path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "DataError: cannot write the download to" in process.stderr
    assert "File too large" in process.stderr
    assert site.part.read_bytes() == CONTENT[: RANGE_BYTES + 5]
    assert site.download() == CONTENT


class SpoilOnce:
    """A plan that changes one byte of the first response for the range from RANGE_BYTES on."""

    def __init__(self, faulty: Faulty, server: str) -> None:
        self.proxy, self.is_done = faulty(server, self), False

    def __call__(self, number: int) -> Fault | None:
        if self.is_done or not self.proxy.requests[number].range.startswith(f"bytes={RANGE_BYTES}-"):
            return None
        self.is_done = True
        return Fault("garble", after=1000)


def test_s3_files_come_whole_and_are_compared_with_their_md5(s3: Bucket, site: Site, faulty: Faulty) -> None:
    url = s3.put("drawings/alarm clock.npz", CONTENT)
    assert site.download(url) == CONTENT
    s3.go_through(SpoilOnce(faulty, s3.endpoint).proxy.url)
    assert site.download(url) == CONTENT
    (sentence,) = site.told
    assert "its MD5 differs" in sentence


def test_an_etag_that_is_no_md5_is_not_taken_for_one(s3: Bucket, site: Site, faulty: Faulty) -> None:
    for options in ({"ServerSideEncryption": "aws:kms"}, {"chunksize": 5 * 2**20}):
        url = s3.put("cat.npz", CONTENT, **options)
        s3.go_through(SpoilOnce(faulty, s3.endpoint).proxy.url)
        # Without an MD5 the damage cannot be detected.
        damaged = site.download(url)
        places = [RANGE_BYTES + 1000]
        assert damaged[: places[0]] + damaged[places[0] + 1 :] == CONTENT[: places[0]] + CONTENT[places[0] + 1 :]
        assert damaged != CONTENT
    assert site.told == []


def test_s3_downloads_go_on_and_start_over(s3: Bucket, site: Site, faulty: Faulty) -> None:
    proxy = faulty(s3.endpoint, [])
    s3.go_through(proxy.url)
    for content in (CONTENT, OTHER):
        url = s3.put("cat.npz", CONTENT)
        # Each range is a GET between two HEADs.
        proxy.follow(lambda number: Fault("status") if number >= 4 else None)
        with pytest.raises(DataError, match="after 3 attempts"):
            site.download(url)
        assert site.part.read_bytes() == CONTENT[:RANGE_BYTES]
        s3.put("cat.npz", content)
        proxy.follow([])
        assert site.download(url) == content
        expected = len(content) - RANGE_BYTES if content == CONTENT else len(content)
        assert proxy.num_bytes == expected


def test_s3_files_that_are_missing_are_told_at_once(s3: Bucket, site: Site) -> None:
    for url in (f"{s3.url}/missing.npz", "s3://no-such-bucket/cat.npz"):
        with pytest.raises(DataError, match="does not exist; check the path"):
            site.download(url)
    assert site.told == []


def test_other_file_systems(site: Site) -> None:
    with fsspec.open("memory://drawings/cat.npz", "wb") as file:
        file.write(CONTENT)
    local = str(site.folder / "cat.npz")
    for url in ("memory://drawings/cat.npz", f"file://{local}", local):
        assert site.download(url) == CONTENT
        site.path.unlink()
    for url in ("memory://drawings/missing.npz", f"{local}-missing"):
        with pytest.raises(DataError, match="does not exist"):
            site.download(url)
    with pytest.raises(DataError, match="it is a directory"):
        site.download(f"file://{site.folder}")


def test_the_md5_that_google_storage_tells_is_compared(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with fsspec.open("memory://drawings/cat.npz", "wb") as file:
        file.write(CONTENT)
    info = MemoryFileSystem.info
    told = {"md5Hash": base64.b64encode(hashlib.md5(CONTENT).digest()).decode(), "etag": "CO0="}
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *place: {**info(*place), **told})
    assert site.download("memory://drawings/cat.npz") == CONTENT
    told["md5Hash"] = base64.b64encode(hashlib.md5(OTHER).digest()).decode()
    with pytest.raises(DataError, match="its MD5 differs"):
        site.download("memory://drawings/cat.npz")
