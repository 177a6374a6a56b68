"""Small hostile sources, one for each way to make a reader of archives, CSVs and images hang, blow up or lie.

`CASES` is the table: a name, a function that writes the source, and what has to come of it. `test_hostile.py` runs it:

    pytest -n 0 tests/test_hostile.py -m "slow or not slow" -k "pax_digits"    # one case, or all with such a name
    python tests/hostile.py pax_digits /tmp/pax_digits                         # write the source of a case, to look at
    python tests/hostile.py                                                    # the names

What is huge is huge in its claims only: sparse files, and deflate streams that repeat one compressed block.
Linux only: device files and `/proc`.
"""

import os
import socket
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
HEADER = ("filename,prompt," + ",".join(LABELS) + "\n").encode()
DICT_HEADER = b"filename,prompt,labels_dict\n"
EMPTY = "," * len(LABELS)  # after the prompt: 14 empty cells
GIB = 1 << 30
HONEST = ("0.png", "1.png")
Make = Callable[[Path], None]


class Case(NamedTuple):
    """A source, and what has to come of it: a SourceError, right rows, or one of the two if both are given."""

    make: Make
    error: str = ""  # regular expression that the message matches
    rows: tuple[str, ...] | int | None = None  # their names, or how many
    many: bool = False  # each folder in the folder is a source of its own
    slow: bool = False
    seconds: float = 10  # of CPU, for plan and examples together
    megabytes: int = 1024  # of memory beyond what the import takes
    read: int | None = None  # rows to read at most


# Building blocks


def chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name: str = "", width: int = 1, height: int = 1, pixels: bytes | None = None, private: bytes = b"") -> bytes:
    """Returns a PNG of one RGB pixel, whose colour depends on the name; other sizes are claims, unless with pixels."""
    pixels = (
        b"\0" + struct.pack(">I", zlib.crc32(name.encode("utf-8", "surrogatepass")))[:3] if pixels is None else pixels
    )
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    extra = chunk(b"prVt", private) if private else b""
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def segment(kind: int, data: bytes = b"", length: int | None = None) -> bytes:
    """Returns a segment of a JPEG; `length` is its claim."""
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2 if length is None else length) + data


def jpeg(width: int = 1, height: int = 1, more: bytes = b"", end: bytes = b"\xff\xd9") -> bytes:
    """Returns a JPEG of a header, `more`, a scan without pixels, and an end."""
    frame = segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    return b"\xff\xd8" + frame + more + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x12\xff\0\xff\xd0\x34" + end


def pixels(image: bytes) -> bytes:
    """Returns the packed pixels of such a PNG; they tell it from others."""
    return image[image.index(b"IDAT") :]


def prompt(name: str) -> str:
    """Returns the prompt of an image."""
    return f"Picture {zlib.crc32(name.encode('utf-8', 'surrogatepass'))}."


def table(names: Iterable[str]) -> bytes:
    """Returns a metadata CSV."""
    lines = (f'"{name}",{prompt(name.rpartition("/")[2])}{EMPTY}\n' for name in names)
    return HEADER + "".join(lines).encode("utf-8", "surrogateescape")


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Writes loose files."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def good(folder: Path, names: Iterable[str] = HONEST) -> None:
    """Writes a source without fault, beside which the hostile file lies."""
    write(folder, {"m.csv": table(names), **{name: png(name) for name in names}})


def beside(name: str, data: bytes) -> Make:
    """Returns a maker of a file beside a source without fault."""
    return both(good, lambda folder: write(folder, {name: data}))


def both(*makers: Make) -> Make:
    """Returns a maker that calls makers one after the other."""

    def make(folder: Path) -> None:
        for maker in makers:
            maker(folder)

    return make


def edited(name: str, edit: Callable[[bytes], bytes]) -> Make:
    """Returns a maker that changes the bytes of a file that another one wrote."""
    return lambda folder: write(folder, {name: edit((folder / name).read_bytes())})


def stretched(name: str, size: int) -> Make:
    """Returns a maker that makes a file longer, by a hole."""
    return lambda folder: os.truncate(folder / name, size)


class Member(NamedTuple):
    """A member of a zip, with every lie that its headers can tell."""

    name: str
    data: bytes  # as it lies in the archive
    method: int = 0
    size: int | None = None  # unpacked
    crc: int | None = None
    packed: int | None = None
    flags: int = 0x800  # UTF-8
    at: int | None = None  # where the directory says that the header is
    extra: bytes = b""  # in the directory
    gap: int = 0  # hole before it

    def headers(self, offset: int) -> tuple[bytes, bytes]:
        """Returns the local header and the entry of the directory."""
        name = self.name.encode("utf-8", "surrogateescape")
        packed = len(self.data) if self.packed is None else self.packed
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        sizes = crc, packed, packed if self.size is None else self.size, len(name)
        at, extra = offset if self.at is None else self.at, self.extra
        if at > 0xFFFFFFFF:
            at, extra = 0xFFFFFFFF, zip64(at=at)
        local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, self.flags, self.method, 0, 33, *sizes, 0) + name
        fields = (20, 20, self.flags, self.method, 0, 33, *sizes, len(extra), 0, 0, 0, 0, at)
        return local, struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", *fields) + name + extra


def end_of_zip(count: int, size: int, start: int, comment: bytes = b"") -> bytes:
    """Returns the record at the end of a zip, after zip64's where the numbers need it."""
    small = (
        struct.pack(
            "<4sHHHHIIH",
            b"PK\5\6",
            0,
            0,
            min(count, 0xFFFF),
            min(count, 0xFFFF),
            *(min(number, 0xFFFFFFFF) for number in (size, start)),
            len(comment),
        )
        + comment
    )
    if count < 0xFFFF and max(size, start) < 0xFFFFFFFF:
        return small
    big = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    return big + struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1) + small


def zip_file(path: Path, members: Iterable[Member], comment: bytes = b"", gap: int = 0) -> None:
    """Writes a zip; `gap` is a hole before the directory."""
    directory = []
    with open(path, "wb") as handle:
        for member in members:
            handle.seek(member.gap, os.SEEK_CUR)
            local, entry = member.headers(handle.tell())
            handle.write(local + member.data)
            directory.append(entry)
        start = handle.seek(gap, os.SEEK_CUR)
        handle.write(b"".join(directory))
        handle.write(end_of_zip(len(directory), handle.tell() - start, start, comment))


def zipped(*members: Member, names: Iterable[str] = HONEST, comment: bytes = b"", gap: int = 0) -> Make:
    """Returns a maker of x.zip: good images, a CSV with a row for each image unless given, and then the members."""

    def make(folder: Path) -> None:
        honest = [Member(name, png(name)) for name in names]
        rows = [*names, *(member.name for member in members if member.name.endswith((".png", ".jpg")))]
        csvs = [] if any(member.name == "m.csv" for member in members) else [Member("m.csv", table(rows))]
        zip_file(folder / "x.zip", [*honest, *csvs, *members], comment, gap)

    return make


def image_member(data: bytes, zeros: int = 0) -> Make:
    """Returns a maker of x.zip with one deflated image: data, or a true PNG with a private chunk of zeros."""

    def make(folder: Path) -> None:
        image = png("a.png", private=bytes(zeros)) if zeros else data
        member = Member("a.png", deflate((image, 1)), 8, len(image), zlib.crc32(image))
        zipped(member, names=())(folder)

    return make


def deflate(*pieces: tuple[bytes, int]) -> bytes:
    """Returns a deflate stream of pieces, each so many times; what repeats is compressed once."""
    stream = bytearray()
    for data, count in pieces:
        packer = zlib.compressobj(9 if count > 1 else 1, wbits=-15)
        stream += (packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)) * count
    return bytes(stream + b"\3\0")  # an empty last block


def csv_member(*pieces: tuple[bytes, int], name: str = "m.csv") -> Member:
    """Returns a deflated CSV, with its true CRC if that is quick to compute."""
    size, crc = sum(len(data) * count for data, count in pieces), 0
    if size < GIB // 4:
        for data, count in pieces:
            for _ in range(count):
                crc = zlib.crc32(data, crc)
    return Member(name, deflate(*pieces), 8, size, crc)


def csv_zip(*pieces: tuple[bytes, int]) -> Make:
    """Returns a maker of a zip with a CSV of pieces beside good images."""
    return lambda folder: zipped(csv_member(*pieces))(folder)  # compressed when it is needed


def csv_file(data: bytes) -> Make:
    """Returns a maker of m.csv beside good images."""
    return beside("m.csv", data)


def cells(*values: str) -> Make:
    """Returns a maker of a source for each label cell."""

    def make(folder: Path) -> None:
        for number, cell in enumerate(values):
            quoted = cell.replace('"', '""')
            data = DICT_HEADER + f'0.png,Round.,"{quoted}"\n'.encode()
            write(folder / f"{number:03}", {"m.csv": data, "0.png": png("0.png")})

    return make


def digits(count: int, width: int) -> list[bytes]:
    """Returns the decimal digits of all numbers below `count`: a column of bytes for each place."""
    places = [b"".join(bytes([48 + digit]) * 10**place for digit in range(10)) for place in range(width)]
    return [(places[place] * (count // len(places[place]) + 1))[:count] for place in reversed(range(width))]


def records(template: bytes, count: int, width: int, at: int, number: tuple[int, int] | None = None) -> bytearray:
    """Returns `count` copies of a record; a loop over the records would take seconds for each million.

    Args:
        template: One record.
        count: How many.
        width: Digits of a record's number.
        at: Where in the record its number is put.
        number: A place and a step: there its number times the step is put, as four little-endian bytes.
    """
    length = len(template)
    data = bytearray(template * count)
    for column, values in enumerate(digits(count, width)):
        data[at + column :: length] = values
    if number:
        start, step = number
        packed = struct.pack(f"<{count}I", *range(0, count * step, step))
        for byte in range(4):
            data[start + byte :: length] = packed[byte::4]
    return data


def tar_header(
    name: str, size: int | bytes, kind: bytes = b"0", link: str = "", magic: bytes = b"ustar\00000"
) -> bytes:
    """Returns a header of a tar, with a right checksum; `size` as bytes is the field as it is."""
    field = b"%011o\0" % size if isinstance(size, int) and size < 8 * GIB else size
    if isinstance(field, int):
        field = b"\x80" + field.to_bytes(11, "big")
    head = bytearray(512)
    head[: len(name)] = name.encode()
    head[100:124] = b"0000644\0" + b"0000000\0" * 2
    head[124:136], head[136:148], head[148:156], head[156:157] = field, b"00000000000\0", b" " * 8, kind
    head[157 : 157 + len(link)], head[257:265] = link.encode(), magic
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def tar_member(name: str, data: bytes, kind: bytes = b"0") -> bytes:
    """Returns a member of a tar."""
    return tar_header(name, len(data), kind) + data + bytes(-len(data) % 512)


def tarred(*blocks: bytes, names: Iterable[str] = HONEST, rows: Iterable[str] = HONEST) -> Make:
    """Returns a maker of x.tar: good images, a CSV of rows, and then blocks."""
    honest = [tar_member(name, png(name)) for name in names]
    return lambda folder: write(
        folder, {"x.tar": b"".join([*honest, tar_member("m.csv", table(rows)), *blocks, bytes(1024)])}
    )


# Images


BIT_FLIPS = [(at, bit) for at in range(len(png())) for bit in range(8)]


def flipped(folder: Path, shape: Callable[[Path, bytes], None]) -> None:
    """Writes a source for each bit of a PNG, in which that bit is flipped."""
    for at, bit in BIT_FLIPS:
        data = bytearray(png("a.png"))
        data[at] ^= 1 << bit
        place = folder / f"{at}.{bit}"
        place.mkdir()
        shape(place, bytes(data))


def loose_image(folder: Path, data: bytes, name: str = "a.png") -> None:
    """Writes one image and its CSV."""
    write(folder, {"m.csv": table([name]), name: data})


def tar_image(folder: Path, data: bytes, name: str = "a.png") -> None:
    """Writes one image and its CSV in a tar."""
    tarred(tar_member(name, data), names=(), rows=[name])(folder)


def zip_image(folder: Path, data: bytes, name: str = "a.png") -> None:
    """Writes one image and its CSV in a zip."""
    zipped(Member(name, deflate((data, 1)), 8, len(data), zlib.crc32(data)), names=())(folder)


ImageShape = Callable[[Path, bytes, str], None]


def images(
    data: bytes, shapes: tuple[ImageShape, ...] = (loose_image, tar_image, zip_image), name: str = "a.png"
) -> Make:
    """Returns a maker of a bad image as each of the three kinds of source."""

    def make(folder: Path) -> None:
        for shape in shapes:
            (folder / shape.__name__).mkdir()
            shape(folder / shape.__name__, data, name)

    return make


def jpegs(data: bytes) -> Make:
    """Returns a maker of a bad JPEG as each of the three kinds of source."""
    return images(data, name="a.jpg")


def large_jpeg(unit: bytes, start: bytes = b"") -> Make:
    """Returns a maker of a JPEG of 32 MiB that repeats some bytes after its frame, and does not end."""
    start = start or jpeg()[:15]
    return lambda folder: jpegs(start + unit * ((32 << 20) // len(unit)))(folder)  # made when it is needed


def real_bomb(folder: Path) -> None:
    """Writes a true PNG of 13,000 x 13,000 pixels, 20 KB."""
    rows = zlib.compress(bytes(13000 * (1 + 1625)), 1)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 13000, 13000, 1, 0, 0, 0, 0))
    images(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b""))(folder)


ZERO = png("a.png")
NO_CHECKSUM = (loose_image, tar_image)  # a zip has one of each image, as it was packed
IMAGES = {
    "png_bit_flips_loose": Case(lambda folder: flipped(folder, loose_image), r"a\.png", many=True, seconds=20),
    "png_bit_flips_in_tar": Case(lambda folder: flipped(folder, tar_image), r"a\.png", many=True, seconds=20),
    "png_claims_65535_squared": Case(images(png("a.png", 65535, 65535)), r"a\.png", many=True),
    "png_claims_2_31_wide": Case(images(png("a.png", 2**31)), r"a\.png", many=True),
    "png_claims_2_31_minus_1_wide": Case(images(png("a.png", 2**31 - 1)), r"a\.png", many=True),
    "png_unpacks_to_13000_squared": Case(real_bomb, r"a\.png", many=True),
    "png_trailing_bytes": Case(images(ZERO + b"more"), r"a\.png", many=True),
    "png_trailing_bytes_that_end_like_a_png": Case(
        images(ZERO + chunk(b"IEND", b""), NO_CHECKSUM), r"a\.png", many=True
    ),
    "png_that_ends_in_another_chunk": Case(
        images(ZERO[:-12] + chunk(b"prVt", b"IEND"), NO_CHECKSUM), r"a\.png", many=True
    ),
    "png_two_in_one": Case(images(ZERO * 2, NO_CHECKSUM), r"a\.png", many=True),
    "png_chunk_past_the_end": Case(
        images(ZERO[:33] + b"\x7f\xff\xff\xff" + ZERO[37:], NO_CHECKSUM), r"a\.png", many=True
    ),
    "png_chunk_length_over_2_31": Case(
        images(ZERO[:33] + b"\xff\xff\xff\xff" + ZERO[37:], NO_CHECKSUM), r"a\.png", many=True
    ),
    "png_chunk_cut": Case(images(ZERO[:50] + ZERO[-12:], NO_CHECKSUM), r"a\.png", many=True),
    "png_header_only": Case(images(ZERO[:33]), r"a\.png", many=True),
    "png_signature_only": Case(images(ZERO[:8]), r"a\.png", many=True),
    "png_without_pixels": Case(images(ZERO[:33] + ZERO[-12:]), rows=1, many=True),  # no decoder is asked
    "png_zero_width": Case(images(png("a.png", 0)), r"a\.png", many=True),
    "png_zero_height": Case(images(png("a.png", 1, 0)), r"a\.png", many=True),
    "png_empty": Case(images(b""), r"a\.png", many=True),
    "png_64_mib_of_zeros": Case(image_member(bytes(64 << 20)), r"x\.zip: a\.png", seconds=5),
    "png_64_mib_private_chunk": Case(image_member(b"", (64 << 20) - 100), rows=("a.png",), slow=True),
    "png_named_jpg": Case(jpegs(ZERO), r"a\.jpg: PNG file", many=True),
    "png_sparse_8_gib": Case(both(lambda folder: loose_image(folder, ZERO), stretched("a.png", 8 * GIB)), r"a\.png"),
}

SCAN = jpeg(end=b"")
JPEGS = {
    "jpeg": Case(jpegs(jpeg()), rows=1, many=True),  # no decoder is asked
    "jpeg_claims_65500_squared": Case(jpegs(jpeg(65_500, 65_500)), r"a\.jpg: 65,500 x 65,500 pixels", many=True),
    "jpeg_zero_height": Case(jpegs(jpeg(1, 0)), r"a\.jpg: 1 x 0 pixels", many=True),
    "jpeg_named_png": Case(images(jpeg()), r"a\.png: JPEG file", many=True),
    "jpeg_cut": Case(jpegs(jpeg(end=b"")), r"a\.jpg", many=True),
    "jpeg_start_only": Case(jpegs(b"\xff\xd8\xff"), r"a\.jpg", many=True),
    "jpeg_without_frame": Case(jpegs(b"\xff\xd8" + segment(0xE0) + b"\xff\xd9"), r"a\.jpg", many=True),
    "jpeg_second_frame_is_larger": Case(jpegs(jpeg(more=jpeg(65_500, 65_500)[2:15])), r"a\.jpg", many=True),
    "jpeg_second_image_is_larger": Case(jpegs(jpeg() + jpeg(65_500, 65_500)), rows=1, many=True),  # nobody shows it
    "jpeg_length_zero": Case(jpegs(jpeg(more=segment(0xE0, length=0))), r"a\.jpg", many=True),
    "jpeg_length_past_the_end": Case(jpegs(jpeg(more=segment(0xE0, length=0xFFFF))), r"a\.jpg", many=True),
    "jpeg_length_cut": Case(jpegs(b"\xff\xd8\xff\xe0\0"), r"a\.jpg", many=True),
    "jpeg_of_segments": Case(large_jpeg(segment(0xE0)), r"a\.jpg", many=True),
    "jpeg_of_scans": Case(large_jpeg(segment(0xDA)), r"a\.jpg", many=True),
    "jpeg_of_fill_bytes": Case(large_jpeg(b"\xff"), r"a\.jpg", many=True),
    "jpeg_of_restarts": Case(large_jpeg(b"\xff\xd0", SCAN), r"a\.jpg", many=True),
    "jpeg_of_stuffed_zeros": Case(large_jpeg(b"\xff\0", SCAN), r"a\.jpg", many=True),
    "jpeg_of_zeros": Case(large_jpeg(b"\0", SCAN), r"a\.jpg", many=True),
}


# Special files


def special(name: str, link: str) -> Make:
    """Returns a maker of a link beside good files; a relative target is in the source, "fifo" and "socket" are made."""

    def make(folder: Path) -> None:
        source = folder / "source"
        good(source)
        if link == "fifo":
            os.mkfifo(source / name)
        elif link == "socket":
            here = os.getcwd()
            os.chdir(source)  # the path of a socket has 107 bytes at most
            try:
                socket.socket(socket.AF_UNIX).bind(name)
            finally:
                os.chdir(here)
        else:
            (source / name).symlink_to(link)
        (folder / "elsewhere").mkdir()
        zip_file(folder / "elsewhere" / "y.zip", [Member("2.png", png("2.png"))])

    return make


def links_to_files(folder: Path) -> None:
    """Writes a source of links to regular files only."""
    good(folder / "elsewhere", ["0.png", "1.png"])
    zip_file(folder / "elsewhere" / "y.zip", [Member("1.png", png("1.png"))])
    (folder / "source").mkdir()
    for name, target in {"m.csv": "m.csv", "0.png": "0.png", "x.zip": "y.zip"}.items():
        (folder / "source" / name).symlink_to(f"../elsewhere/{target}")


def folders_named_like_files(folder: Path) -> None:
    """Writes folders named x.zip, y.png and z.csv."""
    write(folder, {"m.csv": table(HONEST), "x.zip/0.png": png("0.png"), "y.png/1.png": png("1.png")})
    (folder / "z.csv").mkdir()


def only(name: str, make: Make) -> Make:
    """Returns a maker of which only one file remains."""

    def remaining(folder: Path) -> None:
        make(folder)
        for path in (folder / "source").iterdir():
            if path.name != name:
                path.unlink()

    return remaining


SPECIAL = {
    f"{target.strip('/').replace('/', '_').replace(' ', '_')}_as_{name}": Case(special(name, target), rf"{name}")
    for target in ("fifo", "socket", "/dev/zero", "/dev/full", "/dev/null", "/dev/tty", "/proc/self/pagemap", "nowhere")
    for name in ("x.csv", "x.zip", "x.tar", "x.png", "x.jpg")
} | {
    # Linux says that this file is regular and empty, and reading it never ends.
    "proc_self_pagemap_as_x.csv": Case(special("x.csv", "/proc/self/pagemap"), r"x\.csv", rows=HONEST),
    "fifo_alone": Case(only("x.zip", special("x.zip", "fifo")), r"x\.zip"),
    "link_loop": Case(special("x.zip", "x.zip"), r"x\.zip"),
    "link_loop_of_folders": Case(special("x", "."), r"\bx\b", rows=HONEST),
    "link_to_a_folder": Case(special("x.zip", "../elsewhere"), r"x\.zip"),
    "links_to_files": Case(links_to_files, rows=("1.png", "0.png")),
    "folders_named_like_files": Case(folders_named_like_files, rows=HONEST),
    "link_to_sysfs": Case(special("x.csv", "/sys/kernel/notes"), r"x\.csv", rows=HONEST),
}


# Tars


def negative(size: int) -> bytes:
    """Returns a negative size as GNU's base-256 field."""
    return b"\xff" + (256**11 + size).to_bytes(11, "big")


def pax(body: bytes, size: int | None = None) -> bytes:
    """Returns a PAX header and the member that it is about; `size` is its claim."""
    return tar_header("p", len(body) if size is None else size, b"x") + body + bytes(-len(body) % 512)


def gnu_sparse(folder: Path) -> None:
    """Writes a sparse member: a true PNG with a private chunk of zeros that is a hole."""
    image = png("a.png", private=bytes(8192))
    start, end = image[:512], image[8192:]
    head = bytearray(tar_header("a.png", 512 + len(end), b"S", magic=b"ustar  \0"))
    extents = struct.pack("12s12s12s12s", *(b"%011o" % number for number in (0, 512, 8192, len(end))))
    head[386:434], head[483:495], head[148:156] = extents, b"%011o\0" % len(image), b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    data = start + end
    tarred(bytes(head) + data + bytes(-len(data) % 512), names=(), rows=["a.png"])(folder)


def pax_sparse(folder: Path) -> None:
    """Writes the same as a sparse member of PAX, whose map is in the data."""
    image = png("a.png", private=bytes(8192))
    start, end = image[:512], image[8192:]
    data = b"2\n0\n512\n8192\n%d\n" % len(end)
    data += bytes(-len(data) % 512) + start + end
    fields = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.png"}
    fields["GNU.sparse.realsize"] = str(len(image))
    info = tarfile.TarInfo("GNUSparseFile.0/a.png")
    info.size, info.pax_headers = len(data), fields
    blob = info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)
    tarred(blob, names=(), rows=["a.png"])(folder)


def cut_tars(folder: Path) -> None:
    """Writes a tar cut off at each of its blocks."""
    whole = folder / "whole"
    whole.mkdir()
    tarred()(whole)
    data = (whole / "x.tar").read_bytes()
    for length in range(0, len(data), 512):
        write(folder / f"{length:05}", {"x.tar": data[:length]})


EIGHT = 8 * GIB - 1024
THREE = (*HONEST, "a.png")
RUN = b"1" * 400_000
TARS = {
    "tar_negative_size": Case(tarred(tar_header("a.txt", negative(-1024)), bytes(2048)), r"x\.tar"),
    "tar_negative_size_back_to_the_start": Case(tarred(tar_header("a.png", negative(-512 * 6)), rows=THREE), r"x\.tar"),
    "tar_negative_size_beyond_the_start": Case(tarred(tar_header("a.png", negative(-(2**40))), rows=THREE), r"x\.tar"),
    "tar_size_2_63": Case(tarred(tar_header("a.png", b"\x80" + (2**63).to_bytes(11, "big")), rows=THREE), r"x\.tar"),
    "tar_size_2_87": Case(tarred(tar_header("a.png", b"\x80" + b"\xff" * 11), rows=THREE), r"x\.tar"),
    "tar_size_no_number": Case(tarred(tar_header("a.png", b"hello world\0"), rows=THREE), r"x\.tar"),
    "tar_pax_digits": Case(tarred(pax(RUN), tar_member("2.txt", b"")), r"x\.tar", rows=HONEST),
    "tar_pax_digits_many": Case(
        tarred(*[pax(b"1" * 16_000) + tar_member("2.txt", b"")] * 1000), r"x\.tar", rows=HONEST
    ),
    "tar_pax_chain": Case(tarred(pax(b"11 path=ab\n") * 20_000), r"x\.tar", rows=HONEST),
    "tar_pax_length_zero": Case(tarred(pax(b"0 path=a\n"), tar_member("2.txt", b"")), r"x\.tar", rows=HONEST),
    "tar_pax_length_huge": Case(
        tarred(pax(b"9" * 50 + b" path=a\n"), tar_member("2.txt", b"")), r"x\.tar", rows=HONEST
    ),
    "tar_pax_length_5000_digits": Case(
        tarred(pax(b"9" * 5000 + b" path=a\n"), tar_member("2.txt", b"")), r"x\.tar", rows=HONEST
    ),
    "tar_pax_negative_size": Case(tarred(pax(b"14 size=-1024\n"), tar_member("a.png", ZERO), rows=THREE), r"x\.tar"),
    "tar_pax_size_no_number": Case(tarred(pax(b"12 size=abc\n"), tar_member("a.png", ZERO), rows=THREE), r"x\.tar"),
    "tar_pax_claims_8_gb": Case(both(tarred(pax(b"11 path=ab\n", EIGHT)), stretched("x.tar", 9 * GIB)), r"x\.tar"),
    "tar_global_pax_claims_8_gb": Case(
        both(tarred(tar_header("g", EIGHT, b"g")), stretched("x.tar", 9 * GIB)), r"x\.tar"
    ),
    "tar_long_name_claims_8_gb": Case(
        both(tarred(tar_header("././@LongLink", EIGHT, b"L")), stretched("x.tar", 9 * GIB)), r"x\.tar"
    ),
    "tar_long_link_claims_8_gb": Case(
        both(tarred(tar_header("././@LongLink", EIGHT, b"K")), stretched("x.tar", 9 * GIB)), r"x\.tar"
    ),
    "tar_long_name_negative": Case(tarred(tar_header("././@LongLink", negative(-512), b"L"), bytes(512)), r"x\.tar"),
    "tar_long_name_chain": Case(
        tarred(tar_member("././@LongLink", b"ab\0", kind=b"L") * 20_000), r"x\.tar", rows=HONEST
    ),
    "tar_gnu_sparse_member": Case(gnu_sparse, r"x\.tar", rows=("a.png",)),
    "tar_pax_sparse_member": Case(pax_sparse, r"x\.tar", rows=("a.png",)),
    "tar_symlink_member": Case(tarred(tar_header("a.png", 0, b"2", "0.png"), rows=THREE), r"a\.png|x\.tar"),
    "tar_hardlink_member": Case(tarred(tar_header("a.png", 0, b"1", "0.png"), rows=THREE), r"a\.png|x\.tar"),
    "tar_symlink_to_proc_member": Case(tarred(tar_header("x.csv", 0, b"2", "/dev/zero")), r"x\.tar", HONEST),
    "tar_fifo_member": Case(tarred(tar_header("x.csv", 0, b"6")), r"x\.tar", rows=HONEST),
    "tar_device_member": Case(tarred(tar_header("x.png", 0, b"3")), r"x\.tar", rows=HONEST),
    "tar_cut_at_every_block": Case(cut_tars, r"x\.tar", rows=HONEST, many=True),
    "tar_member_past_the_end": Case(tarred(tar_header("a.png", GIB) + ZERO, rows=THREE), r"x\.tar"),
    "tar_image_of_8_gb": Case(
        both(tarred(tar_header("a.png", 8 * GIB), rows=THREE), stretched("x.tar", 9 * GIB)), r"a\.png"
    ),
    "tar_csv_of_4_gb": Case(both(tarred(tar_header("m.csv", 4 * GIB)), stretched("x.tar", 5 * GIB)), r"m\.csv"),
    "tar_of_zeros": Case(beside("x.tar", bytes(10240)), rows=HONEST),
    "tar_sparse_100_gb": Case(both(tarred(), stretched("x.tar", 100 * GIB)), r"x\.tar", rows=HONEST),
    "tar_100000_empty_members": Case(tarred(tar_header("a.txt", 0) * 90_000), r"x\.tar", rows=HONEST, slow=True),
}


# CSVs


def many_rows(count: int, line: bytes) -> Make:
    """Returns a maker of a zipped CSV in which a line comes `count` times."""
    return lambda folder: csv_zip((HEADER, 1), (line * 1000, count // 1000))(folder)


def many_good_rows(folder: Path) -> None:
    """Writes a zipped CSV of ten million good rows, each with a name of its own."""
    lines = records(f"0000000.png,Round.{EMPTY}\n".encode(), 1_000_000, 6, 1)
    pieces = []
    for million in range(10):
        lines[0 :: len(lines) // 1_000_000] = b"%d" % million * 1_000_000
        pieces.append((bytes(lines), 1))
    zipped(csv_member((HEADER, 1), *pieces))(folder)


def colliding(folder: Path, count: int) -> None:
    """Writes 5,000 label cells, each a dict of `count` integers that all have the same hash."""
    prime = 2**61 - 1  # sys.hash_info.modulus
    keys = ",".join(f"{number * prime:d}:0" for number in range(1, count))
    lines = "".join(f'{number}.png,Round.,"{{{number}:0,{keys}}}"\n' for number in range(5000))
    zipped(csv_member((DICT_HEADER + lines.encode(), 1)))(folder)


def distinct_cells(folder: Path) -> None:
    """Writes 100,000 good rows whose label cells all differ, in their white space, and need the slow parser."""
    count, bits = 100_000, 17
    cell = "{" + " " * bits + ", ".join(f"'{label}': None" for label in LABELS) + "}"
    line = f'000000.png,Round.,"{cell}"\n'.encode()
    lines = records(line, count, 6, 0)
    for bit in range(bits):
        spaces = (b" " * 2**bit + b"\t" * 2**bit) * (count // 2**bit + 1)
        lines[line.index(b"{") + 1 + bit :: len(line)] = spaces[:count]
    zipped(csv_member((DICT_HEADER + bytes(lines), 1)))(folder)


def many_csvs(count: int, data: bytes) -> Make:
    """Returns a maker of a zip with many CSVs beside the metadata's."""
    return lambda folder: zipped(*[Member(f"{number}.csv", data) for number in range(count)])(folder)


def many_big_csvs(folder: Path) -> None:
    """Writes 500 CSVs, none of them over a bound, which have 250 million empty lines together."""
    zipped(*[csv_member((HEADER, 1), (b"\n" * 500_000, 1), name=f"{number}.csv") for number in range(500)])(folder)


def wide(folder: Path) -> None:
    """Writes a CSV whose header has 500,000 columns, and rows to match."""
    csv_file(HEADER[:-1] + b",x" * 500_000 + b"\n" + b",\n" * 1000)(folder)


DEEP = (
    *(
        "(",
        "[",
        "{",
        "{1:",
        "{'Edema':",
        "a(",
        "f'{",
        "-",
        "~",
        "not ",
        "1+",
        "a.",
        "lambda:",
        "1 if 1 else ",
        "*",
        "\\\n",
    ),
)
COSTLY = (
    *("{'Edema': " + "9" * 5000 + "}", "{'Edema': 1e999999999}", "{'Edema': 0x" + "f" * 100_000 + "}"),
    *("{'Edema': '" + "\\N{BULLET}" * 10_000 + "'}", "{'Edema': b'" + "\\x00" * 30_000 + "'}"),
    *("{" + "'Edema': 1, " * 10_000 + "}", "{" * 60 + "}" * 60, "{'Edema': '\ud7ff\ue000'}", "{'a\x1b[2J': 1}"),
)
ODD_NAMES = {
    "line_feed": "a\nb.png",
    "carriage_return": "a\rb.png",
    "both": "a\r\nb.png",
    "escape": "a\x1b[2Jb.png",
    "bell": "a\x07b.png",
    "delete": "a\x7fb.png",
    "c1_control": "a\x9b2Jb.png",
    "next_line": "a\x85b.png",
    "line_separator": "a\u2028b.png",
    "right_to_left": "a\u202egnp.png",
    "forged_problem": "a\n- no problem at all; carry on.png",
    "long": "a" * 200 + ".png",
}


def odd_name(name: str) -> Make:
    """Returns a maker of a zip with an image of an odd name and its row."""
    return zipped(Member(name, png(name)), names=())


def odd_name_in_messages(name: str) -> Make:
    """Returns a maker of zips that are at fault where the odd name is: an image, a row, a row twice, a CSV."""
    faulty = {
        "image": {"m.csv": table(["0.png"]), "0.png": png("0.png"), name: png(name)},
        "row": {"m.csv": table(["0.png", name]), "0.png": png("0.png")},
        "twice": {"m.csv": table([name, name]), name: png(name)},
        "csv": {name.replace("png", "csv"): table([""]), "0.png": png("0.png")},
    }

    def make(folder: Path) -> None:
        for kind, files in faulty.items():
            (folder / kind).mkdir()
            zip_file(folder / kind / "x.zip", [Member(*item) for item in files.items()])

    return make


def paths(name: str) -> Make:
    """Returns a maker of a zip in which an image has a path, as in the CSV."""
    return lambda folder: zip_file(
        folder / "x.zip",
        [
            Member("m.csv", table([name]).replace(prompt(name).encode(), prompt("a.png").encode())),
            Member(name, png("a.png")),
        ],
    )


def undecodable_name(folder: Path) -> None:
    """Writes a loose image whose name is no UTF-8."""
    good(folder)
    write(folder, {os.fsdecode(b"\xff\xfe.png"): ZERO})


TEXT = table(HONEST).decode()
BAD_LINE = f"x.png,Round.,7{EMPTY[:-1]}\n".encode()
CSVS = {
    "csv_4_billion_empty_lines": Case(csv_zip((HEADER, 1), (b"\n" * (1 << 20), 4090)), r"m\.csv"),
    "csv_ten_million_bad_rows": Case(many_rows(10_000_000, BAD_LINE), r"m\.csv"),
    "csv_one_million_bad_rows": Case(many_rows(1_000_000, BAD_LINE), r"m\.csv line 2.*line 3.*line 4.*line 5.*line 6"),
    "csv_one_million_empty_rows": Case(many_rows(1_000_000, f"{EMPTY},\n".encode()), r"m\.csv line 2"),
    "csv_one_million_equal_rows": Case(many_rows(1_000_000, f"0.png,Round.{EMPTY}\n".encode()), r"m\.csv line 3"),
    "csv_ten_million_good_rows": Case(many_good_rows, r"m\.csv", slow=True),
    "csv_one_line_of_1_gb_in_zip": Case(csv_zip((HEADER, 1), (b"a" * (1 << 20), 1024)), r"m\.csv"),
    "csv_header_of_1_gb_in_zip": Case(csv_zip((b"a" * (1 << 20), 1024)), r"m\.csv"),
    "csv_quoted_field_of_1_gb_in_zip": Case(csv_zip((HEADER + b'"', 1), (b"a\n" * (1 << 19), 1024)), r"m\.csv"),
    "csv_one_line_of_1_gb_sparse": Case(both(csv_file(HEADER), stretched("m.csv", GIB)), r"m\.csv"),
    "csv_sparse_4_gb": Case(both(good, stretched("m.csv", 4 * GIB)), r"m\.csv"),
    "csv_sparse_100_gb": Case(both(good, stretched("m.csv", 100 * GIB)), r"m\.csv"),
    "csv_field_of_131073": Case(csv_file(TEXT.replace("Picture", "P" * 131_073, 1).encode()), r"m\.csv line 2"),
    "csv_500000_columns": Case(wide, r"m\.csv"),
    "csv_hash_collisions": Case(lambda folder: colliding(folder, 170), r"m\.csv line 2", slow=True),  # 3,900 characters
    "csv_hash_collisions_in_large_cells": Case(lambda folder: colliding(folder, 700), r"m\.csv line 2", slow=True),
    "csv_100000_distinct_cells": Case(distinct_cells, r"m\.csv line 2", slow=True),
    "csv_deep_cells_of_4000": Case(
        cells(*[start * (4000 // len(start)) for start in DEEP]), r"m\.csv line 2", many=True
    ),
    "csv_deep_cells_of_130000": Case(
        cells(*[start * (130_000 // len(start)) for start in DEEP]), r"m\.csv line 2", many=True
    ),
    "csv_deep_values": Case(cells(*["{'Edema': " + start * 90 for start in DEEP]), r"m\.csv line 2", many=True),
    "csv_costly_cells": Case(cells(*COSTLY), r"m\.csv line 2", many=True),
    "csv_nul": Case(csv_file(TEXT.replace("Picture", "Pic\0ture").encode()), r"m\.csv line 2"),
    "csv_invalid_utf8": Case(
        csv_file(TEXT.encode().replace(b"Picture", b"Pict\xffre")), r"m\.csv line 2.*UTF-8|UTF-8.*m\.csv"
    ),
    "csv_surrogate_utf8": Case(csv_file(TEXT.encode().replace(b"Picture", b"\xed\xa0\x80")), r"m\.csv line 2"),
    "csv_utf16": Case(csv_file(TEXT.encode("utf-16")), r"m\.csv"),
    "csv_utf16_without_mark": Case(csv_file(TEXT.encode("utf-16-le")), r"m\.csv"),
    "csv_utf8_with_mark": Case(csv_file(TEXT.encode("utf-8-sig")), rows=HONEST),
    "csv_unclosed_quote": Case(csv_file(TEXT.replace("Picture", '"Picture').encode()), r"m\.csv line"),
    "csv_unclosed_quote_in_header": Case(csv_file(b'"' + TEXT.encode()), r"m\.csv"),
    "csv_carriage_returns_quoted": Case(
        csv_file(TEXT.replace(prompt("0.png"), '"Round\r\rand\r\nround.\r"').encode()), rows=2
    ),
    "csv_carriage_return_bare": Case(csv_file(TEXT.replace("Picture", "Pic\rture").encode()), r"m\.csv line"),
    "csv_old_mac_lines": Case(csv_file(TEXT.replace("\n", "\r").encode()), r"m\.csv", rows=HONEST),
    "csv_crlf_lines": Case(csv_file(TEXT.replace("\n", "\r\n").encode()), rows=HONEST),
    "csv_empty": Case(csv_file(b""), r"csv"),
    "csv_line_breaks_only": Case(csv_file(b"\n" * 1000), r"csv"),
    "csv_of_png": Case(csv_file(ZERO), r"m\.csv"),
    "csv_4000_others_in_a_zip": Case(many_csvs(4000, b"a,b\n1,2\n"), r"x\.zip", rows=HONEST),
    "csv_4000_metadata_in_a_zip": Case(many_csvs(4000, HEADER), r"x\.zip: m\.csv"),
    "csv_500_of_half_a_million_lines": Case(many_big_csvs, r"x\.zip", slow=True),
    "name_not_utf8": Case(undecodable_name, r"png"),
    "name_with_parent_folders": Case(paths("../../../a.png"), rows=("a.png",)),
    "name_with_backslashes": Case(paths("..\\..\\a.png"), rows=("a.png",)),
    "name_absolute": Case(paths("/etc/a.png"), rows=("a.png",)),
    "name_of_a_drive": Case(paths("C:\\a.png"), rows=("a.png",)),
    "name_after_white_space": Case(paths(" \ta.png"), r"a\.png", rows=("a.png",)),
    "name_without_stem": Case(odd_name(".png"), r"\.png", rows=(".png",)),
}
CSVS |= {f"name_{kind}": Case(odd_name(name), r"x\.zip", rows=(name,)) for kind, name in ODD_NAMES.items()}
CSVS |= {
    f"name_{kind}_in_messages": Case(odd_name_in_messages(name), r"x\.zip", many=True)
    for kind, name in ODD_NAMES.items()
}


# Zips


def zip64(**fields: int) -> bytes:
    """Returns the extra field of zip64."""
    return struct.pack(f"<HH{len(fields)}Q", 1, 8 * len(fields), *fields.values())


def one_member_many_names(folder: Path) -> None:
    """Writes a zip in which 1,000 names are those of one image, of 2 MB unpacked."""
    names = [f"{number}.png" for number in range(1000)]
    image = png("", private=bytes(2 << 20))
    packed, crc = deflate((image, 1)), zlib.crc32(image)
    members = [
        Member(name, packed if not n else b"", 8, len(image), crc, len(packed), at=0) for n, name in enumerate(names)
    ]
    zipped(*members, Member("m.csv", table(names)), names=())(folder)


def overlapping(folder: Path) -> None:
    """Writes a zip with a member inside of another one, which is stored."""
    inner, _ = Member("b.png", png("b.png")).headers(0)
    outer = png("a.png", private=inner + png("b.png"))
    local, _ = Member("a.png", outer).headers(0)
    at = (local + outer).index(inner)
    size, crc = len(png("b.png")), zlib.crc32(png("b.png"))
    members = Member("a.png", outer), Member("b.png", b"", 0, size, crc, size, at=at)
    zipped(*members, Member("m.csv", table(["a.png", "b.png"])), names=())(folder)


def nested_members(folder: Path) -> None:
    """Writes a zip in which each of 250 members contains all later ones: its local headers are stored blocks."""
    image = png("", private=bytes(2 << 20))
    kernel = deflate((image, 1))
    names = [f"{number:03}.png" for number in range(250)]
    data, members, size = kernel, [], len(image)
    crc = zlib.crc32(image)
    for name in reversed(names):
        local, _ = Member(name, b"", 8, size, crc, len(data)).headers(0)
        members.append((name, len(data), size, crc, local))
        quoted = struct.pack("<BHH", 0, len(local), 0xFFFF ^ len(local)) + local
        data, size, crc = quoted + data, size + len(local), 0
    entries, at = [], 0
    with open(folder / "x.zip", "wb") as handle:
        for name, packed, unpacked, check, local in reversed(members):
            handle.write(local)
            entries.append(Member(name, b"", 8, unpacked, check, packed, at=at).headers(0)[1])
            at = handle.tell() + 5
            handle.write(struct.pack("<BHH", 0, len(local), 0xFFFF ^ len(local)))
        handle.write(kernel)
        csv = Member("m.csv", table(names))
        local, entry = csv.headers(handle.tell())
        handle.write(local + csv.data)
        start = handle.tell()
        handle.write(b"".join([*entries, entry]))
        handle.write(end_of_zip(len(entries) + 1, handle.tell() - start, start))


def directory_claims(size: int) -> Make:
    """Returns a maker of a zip in a sparse file whose directory has such a size, the last of it a hole."""

    def make(folder: Path) -> None:
        good(folder)
        local, entry = Member("2.png", png("2.png")).headers(0)
        with open(folder / "x.zip", "wb") as handle:
            handle.write(local + png("2.png"))
            start = handle.tell()
            handle.write(entry)
            handle.seek(start + size)
            handle.write(end_of_zip(1, size, start))

    return make


def million_entries(folder: Path) -> None:
    """Writes a zip whose directory has 850,000 entries that are no images."""
    local, entry = Member("a", b"").headers(0)
    count = 850_000
    good(folder)
    with open(folder / "x.zip", "wb") as handle:
        handle.write(local)
        handle.write(entry * count)
        handle.write(end_of_zip(count, len(entry) * count, len(local)))


def million_rows(folder: Path) -> None:
    """Writes an honest source of a million rows: one stored zip of equal tiny images, and a CSV with 4,000 cells."""
    count, data = 1_000_000, png("")
    local, entry = Member("000000.png", data).headers(0)
    step = len(local) + len(data)
    body = records(local + data, count, 6, 30)
    directory = records(entry, count, 6, 46, (42, step))
    with open(folder / "x.zip", "wb") as handle:
        handle.write(body)
        handle.write(directory)
        handle.write(end_of_zip(count, len(directory), len(body)))
    kinds = []
    for kind in range(4000):
        values = [("1", "0", "-1", "None")[kind >> 2 * place & 3] for place in range(6)] + ["None"] * 8
        cell = ", ".join(f"'{label}': {value}" for label, value in zip(LABELS, values, strict=True))
        kinds.append(f'000000.png,"Picture 000000.","{{{cell}}}"\n')
    with open(folder / "m.csv", "w") as table:
        table.write(DICT_HEADER.decode())
        for start in range(0, count, 4000):
            table.writelines([line.replace("000000", f"{number:06}") for number, line in enumerate(kinds, start)])


MAX = 0xFFFFFFFF  # zip64 has the number
FAKE_END = end_of_zip(0, 0, 0)
ZIPS = {
    "zip_1000_names_of_one_member": Case(one_member_many_names, r"x\.zip"),
    "zip_members_overlap": Case(overlapping, r"x\.zip"),
    "zip_members_overlap_fifield": Case(nested_members, r"x\.zip"),
    "zip_member_overlaps_by_less_than_its_name": Case(
        zipped(Member("a.png", ZERO, size=len(ZERO), packed=len(ZERO) + 3)), r"x\.zip: a\.png"
    ),
    "zip_member_outside_that_is_not_read": Case(zipped(Member("a.txt", b"", at=GIB)), r"x\.zip: .*a\.txt"),
    "zip_member_past_the_directory": Case(
        zipped(Member("a.png", b"", at=1 << 20), Member("a.txt", b"", at=GIB)), r"x\.zip: .*outside"
    ),
    "zip_directory_claims_6_gb": Case(directory_claims(6 * GIB), r"x\.zip"),
    "zip_directory_claims_8_gb": Case(directory_claims(8 * GIB), r"x\.zip"),
    "zip_directory_of_1_gb": Case(directory_claims(GIB), r"x\.zip"),
    "zip_gap_of_8_gb_before_an_image": Case(zipped(Member("a.png", ZERO, gap=8 * GIB)), r"x\.zip", rows=THREE),
    "zip_gap_of_3_gb_before_an_image": Case(zipped(Member("a.png", ZERO, gap=3 * GIB)), r"x\.zip", rows=THREE),
    "zip_gap_of_8_gb_before_the_directory": Case(zipped(gap=8 * GIB), r"x\.zip", rows=HONEST),
    "zip_member_claims_8_gb_packed": Case(
        zipped(Member("a.png", ZERO, 0, MAX, 0, MAX, extra=zip64(size=8 * GIB, packed=8 * GIB)), gap=9 * GIB),
        r"x\.zip",
    ),
    "zip_deflated_member_claims_8_gb_packed": Case(
        zipped(
            Member("a.png", deflate((ZERO, 1)), 8, len(ZERO), zlib.crc32(ZERO), MAX, extra=zip64(packed=8 * GIB)),
            gap=9 * GIB,
        ),
        r"x\.zip",
    ),
    "zip_csv_claims_8_gb_packed": Case(
        zipped(Member("m.csv", TEXT.encode(), 0, MAX, 0, MAX, extra=zip64(size=8 * GIB, packed=8 * GIB)), gap=9 * GIB),
        r"x\.zip",
    ),
    "zip_a_million_other_entries": Case(million_entries, r"x\.zip", rows=HONEST, slow=True),
    "zip_comment_of_65535": Case(zipped(comment=b"c" * 65_535), rows=HONEST),
    "zip_comment_with_end_record": Case(zipped(comment=b"c" * 100 + FAKE_END + b"c" * 100), r"x\.zip", rows=HONEST),
    "zip_comment_is_end_record": Case(zipped(comment=FAKE_END), r"x\.zip", rows=HONEST),
    "zip_comment_is_cut": Case(
        both(zipped(comment=b"c" * 100), edited("x.zip", lambda data: data[:-50])), r"x\.zip", rows=HONEST
    ),
    "zip64_sizes_of_2_63": Case(
        zipped(Member("a.png", ZERO, 0, MAX, 0, MAX, extra=zip64(size=2**63, packed=2**63))), r"x\.zip"
    ),
    "zip64_sizes_of_2_64": Case(
        zipped(Member("a.png", ZERO, 0, MAX, 0, MAX, extra=zip64(size=2**64 - 1, packed=2**64 - 1))),
        r"x\.zip",
    ),
    "zip64_offset_of_2_63": Case(zipped(Member("a.png", ZERO, at=MAX, extra=zip64(at=2**63))), r"x\.zip"),
    "zip64_field_cut": Case(zipped(Member("a.png", ZERO, size=MAX, extra=b"\1\0\x08\0\1")), r"x\.zip"),
    "zip_extra_field_cut": Case(zipped(Member("a.png", ZERO, extra=b"\1")), r"x\.zip|a\.png", rows=THREE),
    "zip64_directory_of_2_63": Case(
        beside("x.zip", Member("2.png", ZERO).headers(0)[0] + end_of_zip(1, 2**63, 2**62)), r"x\.zip"
    ),
    "zip_offset_past_the_end": Case(zipped(Member("a.png", ZERO, at=0x7FFFFFFF)), r"x\.zip"),
    "zip_offset_in_the_directory": Case(zipped(Member("a.png", ZERO, at=0x180)), r"x\.zip|a\.png"),
    "zip_encrypted": Case(zipped(Member("a.png", ZERO, flags=0x801)), r"x\.zip: a\.png"),
    "zip_encrypted_csv": Case(zipped(Member("n.csv", HEADER, flags=0x801)), r"x\.zip: n\.csv"),
    "zip_bzip2": Case(zipped(Member("a.png", ZERO, 12)), r"x\.zip: a\.png"),
    "zip_method_unknown": Case(zipped(Member("a.png", ZERO, 99)), r"x\.zip: a\.png"),
    "zip_patched_data": Case(zipped(Member("a.png", ZERO, flags=0x820)), r"x\.zip: a\.png|a\.png", rows=THREE),
    "zip_csv_of_zeros": Case(csv_zip((HEADER, 1), (bytes(1 << 20), 960)), r"m\.csv"),
    "zip_csv_lies_about_its_size": Case(
        lambda folder: zipped(csv_member((HEADER, 1), (b"\n" * (1 << 20), 4090))._replace(size=1000, crc=0))(folder),
        r"x\.zip|m\.csv",
    ),
    "zip_csv_with_wrong_crc": Case(zipped(Member("m.csv", table(HONEST), crc=1)), r"x\.zip"),
    "zip_image_unpacks_to_more": Case(
        zipped(Member("a.png", deflate((ZERO, 1), (bytes(1 << 20), 3200)), 8, len(ZERO), zlib.crc32(ZERO)), names=()),
        r"a\.png",
    ),
    "zip_image_over_64_mib": Case(image_member(bytes((64 << 20) + 1)), r"x\.zip: a\.png"),
    "zip_local_name_differs": Case(
        both(zipped(), edited("x.zip", lambda data: data.replace(b"0.png\x89", b"9.png\x89"))), r"x\.zip", rows=HONEST
    ),
    "zip_empty_file": Case(beside("x.zip", b""), r"x\.zip"),
    "zip_of_no_members": Case(beside("x.zip", FAKE_END), rows=HONEST),
    "zip_in_a_zip": Case(zipped(Member("y.zip", FAKE_END)), r"x\.zip: y\.zip", rows=HONEST),
    "zip_prefixed": Case(
        both(zipped(), edited("x.zip", lambda data: b"#!/bin/sh\n" * 9 + data)), r"x\.zip", rows=HONEST
    ),
    "zip_a_million_rows": Case(million_rows, rows=1_000_000, slow=True, seconds=60, megabytes=2048, read=1000),
}

CASES = IMAGES | JPEGS | SPECIAL | TARS | CSVS | ZIPS


def build(name: str, folder: Path) -> list[Path]:
    """Writes the source of a case; returns the folders to load, one or many."""
    folder.mkdir(parents=True, exist_ok=True)
    CASES[name].make(folder)
    if CASES[name].many:
        return sorted(folder.iterdir())
    return [folder / "source" if (folder / "source").is_dir() else folder]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(*build(sys.argv[1], Path(sys.argv[2])), sep="\n")
    else:
        print(*CASES, sep="\n")
