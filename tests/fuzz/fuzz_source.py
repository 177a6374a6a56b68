"""Coverage-guided fuzzing of `plan` and `examples` with Atheris: a zip, tar, CSV beside fixed images, PNG, JPEG.

    tox -e fuzz                # 30 seconds for each of the five
    tox -e fuzz -- 600         # ten minutes for each
    python tests/fuzz/fuzz_source.py tar build/fuzz/tar-crash-…    # a failure again; other arguments are libFuzzer's

An input's first byte tells whether its checksums are made right, so that the code behind them is reached. What must
come of an input: a SourceError, or rows that another reader finds too. An image is a PNG with right checksums and
without a byte too many, or a JPEG of the size that libjpeg decodes, if it decodes it. In a zip, whose checksum is that
of the whole file, a PNG's chunks are not judged, and nowhere its pixels. No other exception, no more than 5 s, no more
than 2 GB.
"""

import contextlib
import csv
import io
import logging
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests" / "fixture"
FAILURES = ROOT / "build" / "fuzz"
SHARED_MEMORY = Path("/dev/shm")
LIMITS = ["-timeout=5", "-rss_limit_mb=2048", "-max_len=8192"]
IMAGES = 3  # of the fixture
Images = dict[str, bytes]


# Seeds


def fixture() -> tuple[Images, bytes]:
    """Returns some of the fixture's images, made tiny, and their lines of its CSV."""
    import PIL.Image

    with zipfile.ZipFile(next(FIXTURE.glob("data/*.zip"))) as archive:
        whole = {name: archive.read(name) for name in archive.namelist()[:IMAGES]}
    images = {}
    for number, (name, data) in enumerate(whole.items()):
        small = io.BytesIO()
        picture = PIL.Image.open(io.BytesIO(data)).resize((4, 4))
        picture.convert(["RGB", "L", "P"][number]).save(small, "PNG")
        images[name] = small.getvalue()
    with open(FIXTURE / "metadata.csv", newline="", encoding="utf-8") as handle:
        header, *rows = csv.reader(handle)
    text = io.StringIO()
    csv.writer(text).writerows([header, *(row for row in rows if row[0] in images)])
    return images, text.getvalue().encode()


def jpegs(images: Images) -> Iterator[bytes]:
    """Yields images as JPEGs of some kinds."""
    import PIL.Image

    options: list[dict] = [{}, {"progressive": True}, {"restart_marker_blocks": 1, "comment": b"made up"}]
    for png, option in zip(images.values(), options):
        saved = io.BytesIO()
        PIL.Image.open(io.BytesIO(png)).convert("RGB").resize((17, 9)).save(saved, "JPEG", **option)
        yield saved.getvalue()


def zipped(files: Images, compression: int) -> bytes:
    """Returns a zip."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as writer:
        for name, data in files.items():
            writer.writestr(name, data)
    return archive.getvalue()


def tarred(files: Images, kind: int) -> bytes:
    """Returns a tar."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=kind) as writer:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            writer.addfile(info, io.BytesIO(data))
    return archive.getvalue()


def seeds(target: str) -> Iterator[bytes]:
    """Yields right inputs, without the first byte."""
    images, table = fixture()
    files = {**images, "m.csv": table}
    if target == "zip":
        yield from (zipped(files, kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    elif target == "tar":
        yield from (tarred(files, kind) for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT))
        yield tarred({"é" * 80 + name: data for name, data in files.items()}, tarfile.PAX_FORMAT)
    elif target == "png":
        yield from images.values()
    elif target == "jpeg":
        yield from jpegs(images)
    else:
        rows = list(csv.DictReader(io.StringIO(table.decode())))
        header = b"filename,prompt,labels_dict\n"
        yield from (table, b"\xef\xbb\xbf" + table, table.replace(b"\r\n", b"\n"))
        for none in ("None", "nan", "null"):
            cells = [", ".join(f"'{label}': {value or none}" for label, value in list(row.items())[2:]) for row in rows]
            yield (
                header + "".join(f'{row["filename"]},Round.,"{{{cell}}}"\n' for row, cell in zip(rows, cells)).encode()
            )


# Checksums


def right_png(data: bytearray) -> None:
    """Makes the CRC of each chunk right."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4


def right_tar(data: bytearray) -> None:
    """Makes the checksum of each header right."""
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def right_zip(data: bytearray) -> None:
    """Makes the CRC of each stored member right."""
    at = data.find(b"PK\1\2")
    while 0 <= at <= len(data) - 46:
        method, size, start = (struct.unpack_from(form, data, at + place)[0] for form, place in FIELDS)
        if method == 0 and start + 30 <= len(data):
            begin = start + 30 + sum(struct.unpack_from("<HH", data, start + 26))
            data[at + 16 : at + 20] = struct.pack("<I", zlib.crc32(data[begin : begin + size]))
        at = data.find(b"PK\1\2", at + 4)


FIELDS = [("<H", 10), ("<I", 20), ("<I", 42)]  # of an entry: method, packed size, place


# What must hold of rows


def check_header(image: bytes) -> None:
    """Checks the begin of a PNG."""
    assert image[:16] == b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it does not begin as a PNG"
    width, height = struct.unpack_from(">II", image, 16)
    assert width > 0 and height > 0 and width * height <= 1 << 26, f"{width} x {height} pixels"


def check_jpeg(image: bytes, size: tuple[int, int]) -> None:
    """Compares the size of a JPEG with that which libjpeg decodes."""
    import PIL.Image

    assert image[:3] == b"\xff\xd8\xff" and b"\xff\xd9" in image, "it does not begin or end as a JPEG"
    assert 0 < size[0] * size[1] <= 1 << 26, f"{size} pixels"
    decoded = size
    with contextlib.suppress(Exception), PIL.Image.open(io.BytesIO(image), formats=["JPEG"]) as picture:
        picture.load()
        decoded = picture.size
    assert decoded == size, f"{size} and {decoded} pixels"


def check_chunks(image: bytes) -> None:
    """Reads a PNG's chunks."""
    kinds, at = [], 8
    while at < len(image):
        end = at + 8 + int.from_bytes(image[at : at + 4], "big")
        assert end + 4 <= len(image), "a chunk lies past the end"
        assert zlib.crc32(image[at + 4 : end]) == int.from_bytes(image[end : end + 4], "big"), "wrong CRC of a chunk"
        kinds.append(image[at + 4 : at + 8])
        at = end + 4
    assert kinds.index(b"IEND") == len(kinds) - 1, f"chunks {kinds}"


def check_row(row: dict) -> None:
    """Checks the types and values of a row."""
    assert row["filename"] == row["image"]["path"] and row["filename"].strip() and "/" not in row["filename"]
    assert row["prompt"].strip() and "\0" not in row["prompt"]
    assert len(row["labels_dict"]) == 14 and {*row["labels_dict"].values()} <= {1, 0, -1, None}
    row["filename"].encode()  # no lone surrogates, which Arrow refuses
    row["prompt"].encode()


def unpacked(archive: bytes, entry: zipfile.ZipInfo) -> bytes:
    """Reads a member of a zip, of which `zipfile` wants more than is needed, such as the same name in both headers."""
    begin = entry.header_offset + 30 + sum(struct.unpack_from("<HH", archive, entry.header_offset + 26))
    packed = archive[begin : begin + entry.compress_size]
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(-15).decompress(packed) if entry.compress_type else packed
    return b""


def other_reader(target: str, file: Path, images: Images) -> Callable[[dict], bool]:
    """Returns what tells whether another reader finds a row in the file, too."""
    data = file.read_bytes()
    if target == "zip":
        with zipfile.ZipFile(file) as archive:
            members = [unpacked(data, entry) for entry in archive.infolist() if entry.filename.lower().endswith(".png")]
        return lambda row: row["image"]["bytes"] in members
    if target == "csv":
        table = [*csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)]
        known = [[field.strip() for field in fields] for fields in table]
        return lambda row: (
            row["image"]["bytes"] == images[row["filename"]]
            and any(row["prompt"].strip() in fields and row["filename"] in " ".join(fields) for fields in known)
        )
    return lambda row: row["image"]["bytes"] in data


# The fuzzer


def fuzz(target: str, arguments: list[str]) -> None:
    """Fuzzes one target in this process, which then ends."""
    import atheris

    sys.path[:0] = [str(ROOT)]
    for name in ("tarfile", "zipfile"):
        sys.modules.pop(name, None)  # so that they are imported again, instrumented
    with atheris.instrument_imports(include=["synthchex_75k", "tarfile", "zipfile"]):
        import synthchex_75k
    logging.disable(logging.CRITICAL)
    images, table = fixture()
    repair = {"zip": right_zip, "tar": right_tar, "png": right_png}.get(target, bytes)

    with contextlib.ExitStack() as stack:
        memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory)))
        name = {"zip": "x.zip", "tar": "x.tar", "csv": "m.csv", "png": next(iter(images)), "jpeg": "x.jpg"}[target]
        jpeg_table = table.replace(next(iter(images)).encode(), b"x.jpg")
        fixed = {"csv": images, "png": {"m.csv": table}, "jpeg": {"m.csv": jpeg_table}}.get(target, {})
        for other, content in fixed.items():
            (folder / other).write_bytes(content)

        def test(data: bytes) -> None:
            content = bytearray(data[1:])
            if data and data[0] & 1:
                repair(content)
            (folder / name).write_bytes(content)
            try:
                rows = [*synthchex_75k.examples(synthchex_75k.plan(str(folder), "skip"), "keep")]
            except synthchex_75k.SourceError as error:
                assert error.args[0].replace("\n", "").isprintable(), "the message has control characters"
                return
            found = other_reader(target, folder / name, images)
            for row in rows:
                check_row(row)
                if target == "jpeg":
                    check_jpeg(row["image"]["bytes"], synthchex_75k.dimensions(row["image"]["bytes"]))
                else:
                    check_header(row["image"]["bytes"])
                if target not in ("zip", "jpeg"):
                    check_chunks(row["image"]["bytes"])
                assert found(row), f"no other reader finds {row['filename']}"

        atheris.Setup([__file__, *arguments], test)
        atheris.Fuzz()


def run(target: str, seconds: str) -> bool:
    """Fuzzes one target in a process of its own; tells whether nothing was found."""
    FAILURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-corpus-") as corpus:
        for number, data in enumerate(seeds(target)):
            for switch in range(2):
                Path(corpus, f"{number}.{switch}").write_bytes(bytes([switch]) + data)
        options = [*LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={FAILURES}/{target}-"]
        command = [sys.executable, __file__, target, corpus, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    lines = done.stdout.splitlines()
    if done.returncode == 0:
        print(f"{target}: nothing found; {lines[-1]}", flush=True)
        return True
    print(*lines[-60:], sep="\n")
    written = [line.split("Test unit written to ")[1] for line in lines if "Test unit written to" in line]
    path = os.path.relpath(written[0], ROOT) if written else "INPUT"
    print(f"{target}: failed; again: python tests/fuzz/fuzz_source.py {target} {path}", flush=True)
    return False


def main(arguments: list[str]) -> int:
    """Fuzzes all targets, or one with libFuzzer's arguments."""
    targets = ["zip", "tar", "csv", "png", "jpeg"]
    if arguments and arguments[0] in targets:
        fuzz(arguments[0], arguments[1:])
    passed = [run(target, arguments[0] if arguments else "30") for target in targets]
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
