"""Building from servers and into a bucket produces the same bytes as building from local files."""

import re
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import load_manifest
from sgloc.errors import DataError
from tests.builds import folder_bytes, write_categories
from tests.drawings import make_drawings, write_binary, write_ndjson
from tests.faulty import Fault, FaultyProxy, Plan
from tests.servers import Bucket, Nginx

WORDS = ("alarm clock", "cat", "dog")
OPTIONS = BuildOptions(categories=WORDS, sketches_per_shard=256)
Faulty = Callable[[str, Plan], FaultyProxy]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror of a small part of the public data set."""
    folder = tmp_path / "mirror" / "full" / "simplified"
    folder.mkdir(parents=True)
    for number, word in enumerate(WORDS):
        drawings = make_drawings(700, [word], seed=number, first_key_id=1000 * number)
        write_ndjson(folder / f"{word}.ndjson", drawings)
    return tmp_path / "mirror"


@pytest.fixture
def built(mirror: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files built from the local mirror."""
    build_shards("quickdraw:simplified", str(tmp_path / "local"), OPTIONS, mirror=str(mirror))
    return folder_bytes(tmp_path / "local")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_mirror_behind_a_server(
    nginx: Nginx, mirror: Path, built: dict[str, bytes], num_workers: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    url = nginx.serve(mirror)
    build_shards("quickdraw:simplified", str(out), OPTIONS, mirror=url, num_workers=num_workers)
    assert folder_bytes(out) == built
    # The downloads are removed, including their folder.
    assert all(path.is_file() for path in out.iterdir())
    assert [source.name for source in load_manifest(str(out)).sources] == [f"{word}.ndjson" for word in WORDS]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_retries_are_told(
    nginx: Nginx,
    faulty: Faulty,
    mirror: Path,
    built: dict[str, bytes],
    num_workers: int,
    tmp_path: Path,
    logged: list[str],
) -> None:
    proxy = faulty(nginx.serve(mirror), [Fault("status"), None, Fault("truncate", after=100)])
    out = tmp_path / "out"
    build_shards("quickdraw:simplified", str(out), OPTIONS, mirror=proxy.url, num_workers=num_workers)
    assert all(proxy.url in sentence for sentence in logged)
    attempts = [re.findall(r"attempt (\d) of", sentence) for sentence in logged]
    # With two workers, both faults may hit the same file.
    assert attempts == [["2"], ["2"]] or (num_workers == 2 and attempts == [["2"], ["3"]])
    assert folder_bytes(out) == built


def test_a_file_that_is_not_what_it_claims_is_named_and_can_be_mended(
    nginx: Nginx, mirror: Path, built: dict[str, bytes], tmp_path: Path
) -> None:
    out, url = tmp_path / "out", nginx.serve(mirror)
    path = mirror / "full" / "simplified" / "cat.ndjson"
    content = path.read_bytes()
    # Not detected before the file is fetched; by then the first part is built.
    broken = {b"<html>not here</html>" * 9: "is not ndjson but begins with", b"": "cat.ndjson is empty"}
    for wrong, message in broken.items():
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=message) as caught:
            build_shards("quickdraw:simplified", str(out), OPTIONS, mirror=url)
        assert f"{url}/full/simplified/cat.ndjson" in str(caught.value)
        assert str(out) not in str(caught.value)
        assert (out / "parts" / "00000.json").exists()
    path.write_bytes(content)
    build_shards("quickdraw:simplified", str(out), OPTIONS, mirror=url)
    assert folder_bytes(out) == built


def test_what_only_reading_shows_of_a_downloaded_file_is_told_of_the_source(
    nginx: Nginx, mirror: Path, tmp_path: Path
) -> None:
    out, url = tmp_path / "out", nginx.serve(mirror)
    (mirror / "cut.npz").write_bytes(b"PK\x03\x04" + bytes(99))
    with pytest.raises(DataError, match=rf"^{url}/cut\.npz cannot be read \(BadZipFile"):
        build_shards(f"{url}/cut.npz", str(out))
    assert not [path for path in (out / "downloads").iterdir() if path.is_file()]


def test_kept_downloads_are_not_downloaded_again(
    nginx: Nginx, faulty: Faulty, mirror: Path, built: dict[str, bytes], tmp_path: Path
) -> None:
    proxy = faulty(nginx.serve(mirror), [])
    for name in ("first", "second"):
        build_shards(
            "quickdraw:simplified",
            str(tmp_path / name),
            OPTIONS,
            mirror=proxy.url,
            downloads=str(tmp_path / "downloads"),
            keep_downloads=True,
        )
        assert folder_bytes(tmp_path / name) == built
        assert len(proxy.requests) == len(WORDS)
    assert len(list((tmp_path / "downloads").iterdir())) == len(WORDS)


def test_files_behind_a_url_are_grouped_by_their_sizes_as_local_ones(nginx: Nginx, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_categories(source, 3, 300)
    write_binary(source / "thing 9.bin", make_drawings(300, ["thing 9"], first_key_id=10**9))
    options = BuildOptions(source_bytes_per_part=(source / "thing 0.ndjson").stat().st_size * 3 // 2)
    build_shards(str(source), str(tmp_path / "local"), options)
    built = folder_bytes(tmp_path / "local")
    assert len([name for name in built if name.startswith("train")]) == 2
    url = nginx.serve(source)
    build_shards(f"{url}/", str(tmp_path / "out"), options, num_workers=2)
    assert folder_bytes(tmp_path / "out") == built


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_bucket_to_build_from_and_into(s3: Bucket, mirror: Path, built: dict[str, bytes], num_workers: int) -> None:
    for path in (mirror / "full" / "simplified").iterdir():
        s3.put(f"mirror/full/simplified/{path.name}", path.read_bytes())
    out = f"{s3.url}/out"
    source = "quickdraw:simplified"
    manifest = build_shards(source, out, OPTIONS, mirror=f"{s3.url}/mirror", num_workers=num_workers)
    assert load_manifest(out) == manifest
    file_system, root = fsspec.core.url_to_fs(out)
    file_system.invalidate_cache()
    found = {path.removeprefix(f"{root}/"): file_system.cat_file(path) for path in file_system.find(root)}
    assert found == built
    with pytest.raises(DataError, match="already holds shards"):
        build_shards(source, out, OPTIONS, mirror=f"{s3.url}/mirror")
    build_shards(source, out, OPTIONS, mirror=f"{s3.url}/mirror", overwrite=True)
    assert load_manifest(out) == manifest
