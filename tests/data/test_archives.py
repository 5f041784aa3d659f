"""Archives: unpacked once; what is hostile or damaged is refused in words, soon, and leaves nothing."""

from __future__ import annotations

import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfmgan_hf.data import DataError, DataSource, archives, find_listing
from dfmgan_hf.data.archives import extract_archive
from tests.data.conftest import draw_category, draw_photograph, save


def _pack(folder: Path, archive: Path, mode: str, prefix: str = "") -> Path:
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, arcname=f"{prefix}{folder.name}")
    return archive


@pytest.mark.parametrize(("ending", "mode"), [("tar.xz", "w:xz"), ("tar.gz", "w:gz"), ("tar", "w")])
@pytest.mark.parametrize("prefix", ["", "mvtec_anomaly_detection/"])
def test_the_downloaded_archive_is_a_source(tmp_path: Path, ending: str, mode: str, prefix: str) -> None:
    folder = draw_category(tmp_path / "original")
    archive = _pack(folder, tmp_path / f"plate.{ending}", mode, prefix)
    listing = find_listing(DataSource(archive, "plate", cache_dir=tmp_path / "cache"))
    assert [record.name for record in listing.records] == [
        record.name for record in find_listing(DataSource(folder)).records
    ]
    for record in listing.records:
        assert record.image_path.read_bytes() == (folder / record.name).read_bytes()


def test_an_archive_is_extracted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    archive = _pack(draw_category(tmp_path / "original"), tmp_path / "plate.tar.xz", "w:xz")
    first = extract_archive(archive, tmp_path / "cache")
    (marker := first / "marker.txt").write_text("still there")
    assert extract_archive(archive, tmp_path / "cache") == first
    assert marker.exists()
    _pack(draw_category(tmp_path / "changed", good=7), archive, "w:xz")
    assert extract_archive(archive, tmp_path / "cache") != first


def _archive_with(tmp_path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as tar:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return archive


@pytest.mark.parametrize("name", ["/etc/evil.png", "../evil.png", "plate/../../evil.png", "C:\\evil.png"])
def test_archive_members_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    archive = _archive_with(tmp_path, tarfile.TarInfo(name), b"x")
    with pytest.raises(DataError, match=r"bad\.tar: the member .*evil\.png', which points outside"):
        extract_archive(archive, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("[!.]*")), "something half-extracted was left behind"
    assert not list((tmp_path / "cache").glob("*.partial"))
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_archive_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("plate/train/good/000.png")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match="a link or device"):
        extract_archive(_archive_with(tmp_path, member), tmp_path / "cache")


def test_archives_too_large_or_cut_short_leave_nothing_behind(tmp_path: Path) -> None:
    archive = _pack(draw_category(tmp_path / "original"), tmp_path / "plate.tar.xz", "w:xz")
    with pytest.raises(DataError, match="more than 5000 bytes"):
        extract_archive(archive, tmp_path / "cache", max_bytes=5000)
    archive.write_bytes(archive.read_bytes()[:-4000])
    with pytest.raises(DataError, match=r"plate\.tar\.xz: an archive that does not unpack.*Download it again"):
        extract_archive(archive, tmp_path / "cache")
    archive.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=r"an archive that does not unpack \(no tar or zip archive"):
        extract_archive(archive, tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}


def _archive_of(path: Path, names: list[str], mode: Any) -> Path:
    """An archive of incompressible members of 3000 bytes, so that a byte's place in it tells what the byte is for."""
    content = np.random.default_rng(0).bytes(3000)
    with tarfile.open(path, mode) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("place", [0.02, 0.5, 0.9999])
def test_damage_anywhere_in_a_compressed_archive_is_noticed(tmp_path: Path, ending: str, place: float) -> None:
    mode = "w" if ending == "tar" else f"w:{ending[4:]}"
    archive = _archive_of(tmp_path / f"data.{ending}", [f"plate/train/good/{i:03d}.png" for i in range(20)], mode)
    content = bytearray(archive.read_bytes())
    if ending == "tar":  # nothing protects the content of its files; headers lie every seven blocks
        content[3584 * int(place * 20) + 2] ^= 255
    else:
        content[int(len(content) * place)] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"data\.tar.*does not unpack.*Download it again"):
        extract_archive(archive, tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}


def test_a_tar_that_breaks_off_between_two_files_is_noticed(tmp_path: Path) -> None:
    archive = _archive_of(tmp_path / "data.tar", ["plate/train/good/000.png", "plate/train/good/001.png"], "w")
    archive.write_bytes(archive.read_bytes()[:3584])
    with pytest.raises(DataError, match=r"breaks off without an end"):
        extract_archive(archive, tmp_path / "cache")


@pytest.mark.parametrize(
    "names", [["a.png", "a.png/b.png"], ["a.png/b.png", "a.png"], ["x" * 300 + ".png"]], ids=["file", "folder", "long"]
)
def test_members_that_cannot_be_written_are_named(tmp_path: Path, names: list[str]) -> None:
    archive = _archive_of(tmp_path / "data.tar.xz", names, "w:xz")
    with pytest.raises(DataError, match=r"data\.tar\.xz: a member that cannot be written \(.*\.png.*extract it"):
        extract_archive(archive, tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}


def test_programs_in_an_archive_are_not_written(tmp_path: Path) -> None:
    folder = draw_category(tmp_path / "original")
    (folder / "setup.py").write_text("raise SystemExit")
    shutil.copy(folder / "setup.py", folder / "licence.txt")
    extracted = extract_archive(_pack(folder, tmp_path / "plate.tar", "w"), tmp_path / "cache")
    assert (extracted / "plate" / "licence.txt").exists()
    assert not (extracted / "plate" / "setup.py").exists()


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header of 512 bytes whose size may be what no program writes: negative, or of gigabytes."""
    member = tarfile.TarInfo(name)
    member.type = kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT)[:512])
    block[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def _hostile() -> dict[str, tuple[list[bytes], str]]:
    """Content of tar archives, and what is to be said about them."""
    sparse = bytearray(_header("a.png", 0, tarfile.GNUTYPE_SPARSE))
    sparse[386:482] = b"00000000001\0" * 8
    sparse[482] = 1  # the list of holes goes on in the next block
    sparse[148:156] = b" " * 8
    sparse[148:156] = f"{sum(sparse):06o}\0 ".encode()
    more_holes = b"00000000001\0" * 42 + b"\1".ljust(8, b"\0")
    pax = tarfile.TarInfo("b.png")
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**45)}
    pax.size = 2**25
    long_map = pax.tobuf(tarfile.PAX_FORMAT)
    pax.size = 512
    long_name = _header("long", 20, tarfile.GNUTYPE_LONGNAME) + b"a".ljust(512, b"\0")
    return {
        "negative": ([_header("a.png", -512)], "negative size"),
        "very negative": ([_header("a.png", -(2**40))], "negative size"),
        "negative header": ([_header("long", -512, tarfile.GNUTYPE_LONGNAME)], "negative size"),
        "long name": ([_header("long", 2**33, tarfile.GNUTYPE_LONGNAME)], "a header of more than"),
        "pax": ([_header("pax", 2**33, tarfile.XHDTYPE)], "a header of more than"),
        "claims": ([_header("a.png", 2**50)], "when unpacked"),
        "claims, passed over": ([_header("a.bin", 2**50)], "when unpacked"),
        "headers of headers": ([long_name] * 2000, "does not unpack"),
        "sparse": ([_header("a.png", 0, tarfile.GNUTYPE_SPARSE)], "sparse"),
        "sparse without end": ([bytes(sparse), more_holes * 40_000], "a header of more than"),
        "sparse in pax": ([pax.tobuf(tarfile.PAX_FORMAT), b"1\n0\n0\n".ljust(512, b"\0")], "sparse"),
        "sparse in pax without end": ([long_map, b"9" * 2**25], "does not unpack"),
        # What images cannot compress to, whether it would be written or passed over.
        "bomb": ([_header("zeros.png", 2**29), bytes(2**29)], "when unpacked"),
        "bomb, passed over": ([_header("zeros.bin", 2**29), bytes(2**29)], "when unpacked"),
    }


def test_headers_that_lie_are_refused_in_bounds_of_time_memory_and_disk(tmp_path: Path) -> None:
    """In a process that may take a minute in all, 0.5 GB of memory and files of 64 MB."""
    hostile = _hostile()
    for number, (blocks, _) in enumerate(hostile.values()):
        with lzma.open(tmp_path / f"{number}.tar.xz", "wb", preset=0) as file:
            for block in (*blocks, bytes(2048)):
                file.write(block)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from dfmgan_hf.data import DataError\n"
        "from dfmgan_hf.data.archives import extract_archive\n"
        "limit = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + 2**29\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**26, 2**26))\n"
        "for number in range(int(sys.argv[2])):\n"
        "    try: extract_archive(Path(sys.argv[1]) / f'{number}.tar.xz', Path(sys.argv[1]) / 'cache')\n"
        "    except DataError as error: print(error)\n"
        "    else: print('accepted')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(len(hostile))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = ended.stdout.splitlines()
    assert len(said) == len(hostile), ended.stderr
    for line, (name, (_, match)) in zip(said, hostile.items(), strict=True):
        assert match in line, f"{name}: {line}"
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["a/" * 1900 + "x.png"], "a member 1901 folders deep"),
        (["a" * 1200 + ".png"], "a member 1 folders deep"),
        (["good/a.png", "good/a.png"], r"the member 'good/a\.png' twice"),
        (["a\x1b[31m/../../b.png"], r"the member 'a\\x1b\[31m/\.\./\.\./b\.png', which points outside"),
    ],
    ids=["deep", "long", "twice", "escapes"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_make_trouble_are_refused(tmp_path: Path, form: str, names: list[str], match: str) -> None:
    archive = tmp_path / f"bad.{form}"
    if form == "tar":
        _archive_of(archive, names, "w")
    else:
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.writestr(name, b"x")
    with pytest.raises(DataError, match=match) as raised:
        extract_archive(archive, tmp_path / "cache")
    assert "\x1b" not in str(raised.value)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}


@pytest.mark.parametrize("prefix", ["", "mvtec_anomaly_detection/"])
def test_a_zip_archive_is_a_source(tmp_path: Path, prefix: str) -> None:
    folder = draw_category(tmp_path / "original", defects={"划痕": 2})
    with zipfile.ZipFile(tmp_path / "plate.zip", "w") as file:
        for path in folder.rglob("*"):
            file.write(path, f"{prefix}{path.relative_to(folder.parent).as_posix()}")
        file.writestr("__MACOSX/._plate", b"what macOS adds")
    listing = find_listing(DataSource(tmp_path / "plate.zip", cache_dir=tmp_path / "cache"))
    assert [record.name for record in listing.records] == [r.name for r in find_listing(DataSource(folder)).records]
    assert not any(record.error for record in listing.records)


def test_an_archive_of_an_imagefolder_in_a_folder_is_a_source(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("set/metadata.csv", "file_name,mask_file_name\na.png,a_mask.png\n")
        for name in ("a.png", "a_mask.png"):
            file.write(save(draw_photograph(0), tmp_path / name), f"set/{name}")
    listing = find_listing(DataSource(tmp_path / "set.zip", cache_dir=tmp_path / "cache"))
    assert [record.name for record in listing.records] == ["a.png"]


def test_zip_archives_with_links_bombs_damage_or_a_password_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bad.zip"

    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match):
            extract_archive(archive, tmp_path / "cache")
        assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}

    link = zipfile.ZipInfo("a.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(link, "/etc/passwd")
    refused("a link or device")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for index in range(6):
            file.writestr(f"{index}.png", bytes(2**26))
    refused("when unpacked")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", b"content")
    whole = archive.read_bytes()
    archive.write_bytes(whole.replace(b"content", b"confent"))
    refused("does not unpack .*CRC")
    archive.write_bytes(whole[:-10])
    refused("does not unpack")
    flags = bytearray(whole)
    flags[6] |= 1
    flags[whole.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(bytes(flags))
    refused("does not unpack .*encrypted")


@pytest.mark.parametrize("ending", ["zip", "tar.xz"])
def test_unpacking_ends_when_its_time_is_up(tmp_path: Path, monkeypatch, ending: str) -> None:
    folder = draw_category(tmp_path / "set")
    archive = Path(
        shutil.make_archive(str(tmp_path / "set"), {"zip": "zip", "tar.xz": "xztar"}[ending], folder.parent)
    )
    monkeypatch.setattr(archives, "_SECONDS", -60)
    with pytest.raises(
        DataError, match=r"set\..*: more than -\d+ seconds of unpacking\. Expected an archive of images"
    ):
        extract_archive(archive, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


@pytest.mark.parametrize("names", [[], ["data.zip"], ["train/good/"]])
def test_an_archive_without_images_is_named(tmp_path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        for name in names:
            file.writestr(name, b"")
    with pytest.raises(DataError, match=r"set\.zip: no image and no text in it.*inside of an archive"):
        extract_archive(tmp_path / "set.zip", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if not path.name.endswith(".lock")]
