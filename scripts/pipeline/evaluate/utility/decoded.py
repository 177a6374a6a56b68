"""Images decoded once, in gray, at the size that a network takes: training reads them again and again, in any order.

A 512 x 512 PNG takes 4 to 11 ms to decode, so that a GPU would wait for the processor in each epoch. The decoded images
lie in files of `IMAGES_PER_FILE`, mapped into memory. An image is known by what identifies it in its source and by how
it was prepared; one that was decoded for another setting or seed is not decoded again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from pipeline.errors import StepError, describe_error
from pipeline.files import atomic_write
from pipeline.jobs import available_cpus
from pipeline.parquet_source import ParquetRow
from pipeline.progress import progress_bar
from pipeline.rows import AnyRow, decode, read, to_rgb
from pipeline.shards import check_space

IMAGES_PER_FILE = 128  # at most as many encoded images wait in memory for a processor
VERSION = 1  # of how images are prepared
ABOUT = "gray, the largest square in the middle, resized"
KEY = 32  # digits of the hash that a decoded image is known by


class DecodedImages:
    """A folder of decoded images.

    An image is made gray, since a radiograph has no colour and a tint would tell its source. The largest square in its
    middle is resized, as most encoders of radiographs do: bars that fill up an image to a square would tell it too.

    Args:
        folder: Where the files are; created when the first is written.
        size: Width and height: pixels.
        interpolation: Name of Pillow's filter, such as `"bicubic"`.

    Raises:
        StepError: A file cannot be used.
    """

    def __init__(self, folder: Path, size: int, interpolation: str) -> None:
        self._folder, self._size = folder, size
        self._filter = PIL.Image.Resampling[interpolation.upper()]
        self._kind = f"{VERSION} {size} {interpolation}"
        self._files: list[np.ndarray] = []
        self._names: set[str] = set()
        self._places: dict[bytes, tuple[int, int]] = {}

    def add(self, rows: Iterable[AnyRow]) -> None:
        """Decodes the images that are not in the folder yet; an interruption loses one file of them at most.

        Args:
            rows: Rows of plans, of one or several sources, in any order.

        Raises:
            SourceError: An image is damaged, or its source has changed.
            StepError: A remote source failed, or the disk has no room.
            OSError: A file cannot be read or written.
        """
        self.refresh()
        missing = {key: row for row in rows if (key := self._key(row)) not in self._places}
        check_space(self._folder, len(missing) * (KEY + self._size**2), 0)
        with (
            progress_bar("Decoding images", len(missing), "img", disable=not missing) as bar,
            ThreadPoolExecutor(available_cpus()) as threads,
        ):
            for part in _parts(missing):
                try:
                    images = list(threads.map(self._prepare, part.values(), read([*part.values()])))
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
                self._write([*part], images)
                bar.update(len(part))
        self.refresh()

    def refresh(self) -> None:
        """Looks for files that were written since, here or by another process.

        Raises:
            StepError: A file cannot be used.
        """
        for path in sorted(self._folder.glob("*.npy")) if self._folder.is_dir() else ():
            if path.name in self._names:
                continue
            try:
                file = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, OSError, EOFError) as error:
                raise StepError(f"{path}: {describe_error(error)}; remove it, it will be made again") from error
            self._names.add(path.name)
            if file.dtype == self._dtype(len(file[0]["keys"])):  # else of another size
                keys = enumerate(file[0]["keys"].tolist())
                self._places.update((key, (len(self._files), number)) for number, key in keys)
                self._files.append(file[0]["pixels"])

    def places(self, rows: Iterable[AnyRow]) -> list[tuple[int, int]]:
        """Returns where the images of rows are, for `read`.

        Raises:
            StepError: One was not added, or is not in the folder of this machine.
        """
        found = [(row, self._places.get(self._key(row))) for row in rows]
        if missing := [row.filename for row, place in found if place is None]:
            raise StepError(f"{self._folder}: no decoded image {missing[0]}; all machines must share the folder")
        return [place for _, place in found if place]

    def read(self, places: Sequence[tuple[int, int]]) -> np.ndarray:
        """Returns images: uint8 of shape (images, size, size).

        Args:
            places: Of the images, as `places` returned them.
        """
        images = np.empty((len(places), self._size, self._size), np.uint8)
        for image, (file, number) in zip(images, places):
            image[:] = self._files[file][number]
        return images

    def _key(self, row: AnyRow) -> bytes:
        identity = repr((self._kind, row.filename, image_identity(row)))
        return hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:KEY].encode()

    def _prepare(self, row: AnyRow, found: tuple[int, dict]) -> np.ndarray:
        image = to_rgb(decode(found[1]["image"]["bytes"], row.where)).convert("L")
        return np.asarray(PIL.ImageOps.fit(image, (self._size, self._size), self._filter))

    def _dtype(self, count: int) -> np.dtype:
        """Returns the content of a file with a number of images: keys that are read at once, then pixels."""
        return np.dtype([("keys", f"S{KEY}", (count,)), ("pixels", np.uint8, (count, self._size, self._size))])

    def _write(self, keys: list[bytes], images: list[np.ndarray]) -> None:
        content = io.BytesIO()
        np.save(content, np.array([(keys, images)], self._dtype(len(keys))), allow_pickle=False)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:16]
        atomic_write(self._folder / f"{name}.npy", content.getvalue())


def image_identity(row: AnyRow) -> object:
    """Returns what changes with the bytes of an image, as far as that is known without reading them.

    Args:
        row: A row of a plan.

    Returns:
        In a zip, size and CRC-32 of the image; else its place, and size and time or ETag of the file that it is in.
    """
    if row.zipped:
        return row.size, row.zipped[2]
    return (*_order(row), row.versions[:1])


def _order(row: AnyRow) -> tuple[str, int, int]:
    """Returns a key by which images are read in the order in which they are stored."""
    return (row.path, row.group, row.number) if isinstance(row, ParquetRow) else (row.path, row.offset, 0)


def _parts(missing: dict[bytes, AnyRow]) -> Iterator[dict[bytes, AnyRow]]:
    """Yields rows for each file: all of one kind, in the order in which they are stored."""
    for is_parquet in (False, True):
        of_kind = [item for item in missing.items() if isinstance(item[1], ParquetRow) == is_parquet]
        of_kind.sort(key=lambda item: _order(item[1]))
        for start in range(0, len(of_kind), IMAGES_PER_FILE):
            yield dict(of_kind[start : start + IMAGES_PER_FILE])
