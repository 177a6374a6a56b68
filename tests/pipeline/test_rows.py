"""Decoding images of every kind, and what 8-bit RGB cannot hold of them."""

import io
import random
import struct
import warnings
import zlib

import datasets
import PIL.Image
import PIL.ImageCms
import pytest

from images import GRAY, GRAY_ALPHA, PALETTE, RGB, RGBA, SIGNATURE, chunk, to_jpeg, to_png, values_16
from pipeline.rows import decode, not_in_rgb, to_rgb
from synthchex_75k import SourceError

TRANSPARENCY, COLOURS = "transparency", "a colour space other than sRGB (CMYK, a profile, gAMA or cHRM)"
SRGB_CHRM = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def profile(name: str) -> bytes:
    return PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile(name)).tobytes()  # type: ignore[arg-type]


def gama(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


def chrm(*values: int) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *values))


def iccp(data: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(data))


@pytest.mark.parametrize("kind", [GRAY, RGB, RGBA])
def test_16_bits_are_scaled_and_rounded(kind: int) -> None:
    values = [0, 1, 128, 129, 255, 256, 257, 385, 386, 65280, 65535, *random.Random(0).choices(range(65536), k=2000)]
    shown = to_rgb(decode(values_16(values, kind), "a.png"))
    assert [shown.getpixel((x, 0)) for x in range(len(values))] == [(round(value / 257),) * 3 for value in values]


def test_16_bits_of_gray_with_alpha_are_scaled() -> None:
    values = [*range(0, 65536, 100), 65535]
    shown = to_rgb(decode(values_16(values, GRAY_ALPHA), "a.png"))
    for x, value in enumerate(values):
        pixel = shown.getpixel((x, 0))
        assert isinstance(pixel, tuple) and abs(pixel[0] - value / 257) < 1


def test_decoded_image_is_described_as_pillow_does() -> None:
    """The card shows it as `load_dataset` will return it."""
    for kind in (GRAY, RGB, RGBA):
        data = values_16([0, 65535], kind)
        ours, pillows = decode(data, "a.png"), PIL.Image.open(io.BytesIO(data))
        assert (type(ours), ours.mode, ours.size) == (type(pillows), pillows.mode, pillows.size)


@pytest.mark.parametrize(
    ("png", "colour"),
    [
        (to_png((1, 1), RGBA, 8, bytes([200, 100, 50, 0])), (0, 0, 0)),
        (to_png((1, 1), RGBA, 8, bytes([200, 100, 50, 255])), (200, 100, 50)),
        (to_png((1, 1), RGBA, 8, bytes([200, 100, 50, 51])), (40, 20, 10)),
        (to_png((1, 1), GRAY_ALPHA, 8, bytes([200, 0])), (0, 0, 0)),
        (to_png((1, 1), GRAY, 8, bytes([200]), chunk(b"tRNS", b"\0\xc8")), (0, 0, 0)),
        (to_png((1, 1), GRAY, 8, bytes([200]), chunk(b"tRNS", b"\0\xc9")), (200, 200, 200)),
        (
            to_png((1, 1), PALETTE, 8, b"\0", chunk(b"PLTE", bytes([200, 100, 50])), chunk(b"tRNS", b"\0")),
            (0, 0, 0),
        ),
    ],
    ids=["RGBA", "opaque", "half", "gray", "key", "other key", "palette"],
)
def test_transparent_images_are_shown_on_black(png: bytes, colour: tuple[int, int, int]) -> None:
    image = decode(png, "a.png")
    assert not_in_rgb(image) == TRANSPARENCY
    assert to_rgb(image).getpixel((0, 0)) == colour


@pytest.mark.parametrize("kind", [GRAY, RGB])
def test_transparent_16_bits_are_shown(kind: int) -> None:
    key = chunk(b"tRNS", b"\x12\x34" * (1 if kind == GRAY else 3))
    image = decode(to_png((2, 1), kind, 16, b"\xff" * 12, key), "a.png")
    assert not_in_rgb(image) == TRANSPARENCY
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("chunks", "lost"),
    [
        ([], None),
        ([gama(45455)], None),
        ([gama(45455), chrm(*SRGB_CHRM)], None),
        ([chunk(b"sRGB", b"\0"), gama(100_000)], None),
        ([gama(100_000)], COLOURS),
        ([gama(55_556)], COLOURS),
        ([chrm(31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)], COLOURS),
        ([iccp(profile("sRGB"))], None),
        ([iccp(profile("XYZ"))], COLOURS),
        ([iccp(b"no profile")], COLOURS),
        ([chunk(b"sRGB", b"\0"), iccp(profile("XYZ"))], COLOURS),
    ],
    ids=["none", "gAMA", "cHRM", "sRGB", "linear", "1.8", "P3", "profile", "other profile", "damaged", "both"],
)
def test_other_colour_spaces_are_recognised(chunks: list[bytes], lost: str | None) -> None:
    image = decode(to_png((1, 1), RGB, 8, bytes(3), *chunks), "a.png")
    assert not_in_rgb(image) == lost
    assert to_rgb(image).getpixel((0, 0)) == (0, 0, 0)


def test_profile_of_another_name_that_is_srgb() -> None:
    renamed = profile("sRGB").replace(b"sRGB", b"none").replace("sRGB".encode("utf-16-be"), "none".encode("utf-16-be"))
    assert not_in_rgb(decode(to_png((1, 1), RGB, 8, bytes(3), iccp(renamed)), "a.png")) is None


def test_animation_is_recognised() -> None:
    frames = [PIL.Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    saved = io.BytesIO()
    frames[0].save(saved, "PNG", save_all=True, append_images=frames[1:])
    image = decode(saved.getvalue(), "a.png")
    assert not_in_rgb(image) == "an animation"
    assert to_rgb(image).getpixel((0, 0)) == (255, 0, 0)


# JPEG


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9), 99])
def test_images_are_turned_as_datasets_does(kind: str, orientation: int | None) -> None:
    exif, saved = PIL.Image.Exif(), io.BytesIO()
    if orientation:
        exif[0x0112] = orientation
    PIL.Image.linear_gradient("L").resize((40, 30)).rotate(15).save(saved, kind, exif=exif.tobytes())
    wanted = datasets.Image().decode_example({"path": None, "bytes": saved.getvalue()})
    image = decode(saved.getvalue(), "a.jpg")
    assert (image.size, image.tobytes()) == (wanted.size, wanted.tobytes())
    assert image.size == ((30, 40) if orientation in (5, 6, 7, 8) else (40, 30))
    assert not_in_rgb(image) is None


@pytest.mark.parametrize(
    ("mode", "profile", "lost"),
    [
        ("L", None, None),
        ("RGB", None, None),
        ("CMYK", None, COLOURS),
        ("RGB", profile("sRGB"), None),
        ("L", profile("sRGB"), None),
        ("RGB", profile("XYZ"), COLOURS),
        ("RGB", b"no profile", COLOURS),
    ],
    # A profile holds the second in which it was made, and each process of pytest-xdist makes its own.
    ids=["gray", "RGB", "CMYK", "profile", "profile of gray", "other profile", "damaged"],
)
def test_colours_of_a_jpeg(mode: str, profile: bytes | None, lost: str | None) -> None:
    image = decode(to_jpeg(PIL.Image.new(mode, (8, 8)), icc_profile=profile), "a.jpg")
    assert not_in_rgb(image) == lost
    assert to_rgb(image).getpixel((0, 0)) == ((255, 255, 255) if mode == "CMYK" else (0, 0, 0))


def test_a_preview_in_a_jpeg_is_no_animation() -> None:
    saved = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), "red").save(saved, "MPO", save_all=True, append_images=[PIL.Image.new("RGB", (4, 4))])
    image = decode(saved.getvalue(), "a.jpg")
    assert (image.size, not_in_rgb(image)) == ((8, 8), None)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP"])
def test_other_decoders_are_not_asked(kind: str) -> None:
    saved = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(saved, kind)
    with pytest.raises(SourceError, match=r"a\.jpg: Pillow cannot decode the image \(cannot identify"):
        decode(saved.getvalue(), "a.jpg")


@pytest.mark.parametrize(
    "png",
    [
        b"",
        SIGNATURE,
        to_png((1, 1), RGB, 8, bytes(3))[:40],
        to_png((20_000, 20_000), GRAY, 8, b""),  # DecompressionBombError
        to_png((1, 1), RGB, 8, bytes(3), chunk(b"gAMA", b"")),  # struct.error
        to_png((1, 1), RGB, 16, bytes(2)),
    ],
    ids=["empty", "signature", "cut", "bomb", "chunk", "16 bits"],
)
def test_damaged_image_is_an_error_by_name(png: bytes) -> None:
    with pytest.raises(SourceError, match=r"^a\.png: Pillow cannot decode the image \(.+\); generate or"):
        decode(png, "a.png")


def test_every_damaged_byte_is_an_error_by_name_or_an_image() -> None:
    whole = to_png((4, 4), RGB, 8, bytes(range(48)), gama(45455), chunk(b"pHYs", bytes(9)), chunk(b"tIME", bytes(7)))
    for at in range(8, len(whole)):
        for end in (at, len(whole)):
            damaged = whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 : end]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    to_rgb(decode(damaged, "a.png"))
            except SourceError as error:
                assert str(error).startswith("a.png: ")
