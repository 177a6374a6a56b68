"""SynthCheX-75K: 75,649 synthetic chest radiographs, each with the prompt that made it and 14 CheXpert labels.

A *source* is a folder, local or remote, of `.zip` or `.tar` archives and/or loose `.png` files with one metadata CSV.
`plan` checks all of it without reading an image and says where the bytes of every row lie; `examples` reads any slice
of the plan. Nothing in a source is executed or unpacked to disk; downloads and caches are those of `datasets`.
"""

import ast
import collections
import csv
import dataclasses
import functools
import hashlib
import io
import itertools
import logging
import os
import re
import struct
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import datasets
import fsspec

PUBLISHED_REVISION = "main"
PUBLISHED_SOURCE = f"hf://datasets/raman07/SynthCheX-75K@{PUBLISHED_REVISION}"
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
COLUMNS = {  # accepted names; the labels can also be 14 columns
    "filename": ("filename", "synthetic_filename", "img_savename", "file_name"),
    "prompt": ("prompt", "annotated_prompt"),
    "labels": ("labels_dict", "chexpert_labels"),
}
RAW_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-0.0": 0, "-1": -1, "-1.0": -1, "": None, "none": None, "nan": None}
UNCERTAINTY: dict[
    str, dict[int | None, int | None]
] = {  # the label policies of the CheXpert paper (arXiv 1901.07031): what a raw value reads as
    "zeros": {1: 1, 0: 0, -1: 0, None: 0},
    "ones": {1: 1, 0: 0, -1: 1, None: 0},
    "keep": {1: 1, 0: 0, -1: -1, None: None},
}
FEATURES = datasets.Features(
    image=datasets.Image(),
    filename=datasets.Value("string"),
    prompt=datasets.Value("string"),
    labels_dict={label: datasets.Value("int8") for label in LABELS},
)
HOMEPAGE = "https://huggingface.co/datasets/raman07/SynthCheX-75K"
CITATION = """@article{dutt2025chexgenbench,
  title   = {CheXGenBench: A Unified Benchmark For Fidelity, Privacy and Utility of Synthetic Chest Radiographs},
  author  = {Dutt, Raman and Sanchez, Pedro and Yao, Yongchen and McDonagh, Steven and Tsaftaris, Sotirios A. and \
Hospedales, Timothy},
  journal = {arXiv preprint arXiv:2505.10496},
  year    = {2025}
}"""
MAX_IMAGE_BYTES = 64 << 20
NO_CSV = f"no metadata CSV; it has the columns {', '.join('/'.join(names) for names in COLUMNS.values())} or 14 labels"
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, ValueError, EOFError, RuntimeError)
Labels = tuple[int | None, ...]  # raw: 1, 0, -1 or None, in the order of LABELS
Files = dict[str, dict[str, Any]]  # fsspec's info by name below the source; its "name" is the full address
Options = dict[str, dict[str, Any]]  # fsspec's options by protocol, such as {"hf": {"token": "…"}}
Problems = dict[str, list[str]]  # places by what is wrong there and what to do
logger = logging.getLogger(__name__)


class SourceError(ValueError):
    """A source that cannot be used as it is; the message says what is wrong, where, and what to do."""


class Row(NamedTuple):
    """One row of a plan: where its image lies, and its prompt and raw labels."""

    filename: str
    path: str  # of the archive or of the image itself
    where: str  # the same for messages, with the member's name
    offset: int  # of the image's bytes in `path`; in a zip, of the header before them
    length: int | None  # of what is to be read from there; None: all of `path`
    size: int | None  # of the image, unpacked; None: its server does not say
    zipped: tuple[int, int, int] | None = None  # in a zip: method, packed size, CRC-32
    prompt: str = ""
    labels: Labels = ()


def plan(
    source: str, on_mismatch: str = "error", options: Options | None = None, files: Files | None = None
) -> list[Row]:
    """Joins the images and the metadata of a source, checking all that can be checked without reading an image.

    Args:
        source: Folder or one archive: a path or what fsspec opens (`hf://datasets/user/repo@rev`, `https://…`).
        on_mismatch: `"error"`, or `"skip"` to leave out images without a row and rows without an image.
        options: fsspec's options by protocol.
        files: Those of the source to look at. Default: all, as by `list_files`.

    Returns:
        The rows in order: archives by name, their members as they lie, then loose images by name.

    Raises:
        SourceError: All that is wrong: by kind, what to do, how many, the first five places.
    """
    problems: Problems = collections.defaultdict(list)
    images: dict[str, Row] = {}
    tables: dict[str, dict[str, tuple[str, str, Labels]]] = {}  # by CSV and file name: place, prompt, labels
    for file, info in (files or list_files(source, options)).items():
        try:
            for row, csv_lines in _members(file, info, options):
                if csv_lines is not None:
                    _read_csv(row.where, csv_lines, tables, problems)
                    continue
                if row.filename in images:
                    both = f"{images[row.filename].where} and {row.where}"
                    problems["file name twice among the images; remove or rename one"].append(both)
                if row.size == 0:
                    problems["empty image; get it again"].append(row.where)
                if (row.size or 0) > MAX_IMAGE_BYTES:
                    problems["image over 64 MiB unpacked; get it again"].append(row.where)
                images[row.filename] = row
        except DAMAGE as error:
            problems["unreadable archive; get it again, or repack it as plain zip or tar"].append(f"{file}: {error}")
    rows = _join(images, tables, problems, on_mismatch)
    found = [f"- {kind} ({len(at)} in all): {'; '.join(at[:5])}" for kind, at in problems.items() if at]
    if found:
        raise SourceError("\n".join([f"{source} cannot be used as it is", *found]))
    return rows


def examples(
    rows: Iterable[Row], uncertainty: str = "zeros", options: Options | None = None, read_ahead: int = 0
) -> Iterator[dict]:
    """Reads rows of a plan, each when it is asked for.

    Args:
        rows: Rows of `plan`, any of them.
        uncertainty: Label policy, a key of `UNCERTAINTY`.
        options: fsspec's options by protocol.
        read_ahead: Bytes that a request to a remote source asks for. Default: one image a request and no byte more.

    Yields:
        What `FEATURES` describes, the image as the bytes of its PNG file, untouched.

    Raises:
        SourceError: An image is not the whole PNG file that the plan found; names archive and member.
    """
    policy = UNCERTAINTY[uncertainty]
    for path, group in itertools.groupby(rows, key=lambda row: row.path):
        fs, root = _filesystem(path, options)
        cache = {"cache_type": "readahead", "block_size": read_ahead} if read_ahead else {"cache_type": "none"}
        with fs.open(root, "rb", **cache) as handle:
            for row in group:
                yield {
                    "image": {"path": row.filename, "bytes": _read_png(handle, row)},
                    "filename": row.filename,
                    "prompt": row.prompt,
                    "labels_dict": {label: policy[raw] for label, raw in zip(LABELS, row.labels)},
                }


@dataclasses.dataclass
class SynthCheX75KConfig(datasets.BuilderConfig):
    """What `load_dataset` takes as keywords.

    Args:
        data_dir: The source, as in `plan`. Default: the folder or Hub repo of this script if an archive or CSV is at
            its top or in `data/` (then all of it but `tests/`, `scripts/` and what is hidden), else the release.
        uncertainty: `"zeros"` (U-Zeros: what is not positive is 0), `"ones"` (U-Ones: -1 is 1) or `"keep"` (raw).
        on_mismatch: `"error"`, or `"skip"` to leave out images without a row and rows without an image.
    """

    uncertainty: str = "zeros"
    on_mismatch: str = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in {"uncertainty": tuple(UNCERTAINTY), "on_mismatch": ("error", "skip")}.items():
            if vars(self)[name] not in choices:
                raise ValueError(f"{name}={vars(self)[name]!r} is not one of {', '.join(choices)}")
        if self.data_files is not None:
            raise ValueError("data_files is not used: give the folder of the source as data_dir")


class SynthCheX75K(datasets.GeneratorBasedBuilder):
    """Builds the Arrow cache, or streams. One configuration, `SynthCheX75KConfig`; one split, `train`."""

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = SynthCheX75KConfig
    DEFAULT_WRITER_BATCH_SIZE = 50  # rows, 13 MB; the 1,000 of `datasets` 2.x take 1.3 GB of memory

    def __init__(self, *args: Any, hash: str | None = None, **kwargs: Any) -> None:
        # The hash names the cache folder: a local source that has changed must not be answered from an old one.
        files = _find_source(kwargs.get("data_dir"), kwargs.get("base_path"), local=True)[1]
        if files:
            state = [(name, info["size"], info["mtime"]) for name, info in files.items()]
            hash = hashlib.sha256(repr((hash, state)).encode()).hexdigest()
        super().__init__(*args, hash=hash, **kwargs)
        self._options: Options = {"hf": {"token": self.token}, **self.storage_options}

    def _info(self) -> datasets.DatasetInfo:
        about = {"description": str(__doc__).partition("\n")[0], "citation": CITATION, "license": "Apache-2.0"}
        about["homepage"] = "https://huggingface.co/datasets/raman07/SynthCheX-75K"
        return datasets.DatasetInfo(features=FEATURES, **about)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Downloads share out to threads: a fork would inherit the event loop of fsspec without its thread, and hang.
        dl_manager.download_config.num_proc = None
        source, files = _find_source(self.config.data_dir, self.base_path, self._options)
        for info in files.values():
            if info["name"].lower().endswith(".tar"):  # it has no directory: to list it is to read it all
                info["name"] = dl_manager.download(info["name"])
        rows = plan(source, self.config.on_mismatch, self._options, files)
        remote = list(dict.fromkeys(row.path for row in rows if "://" in row.path))
        if remote:
            local = dict(zip(remote, dl_manager.download(remote)))  # when streaming, the addresses as they are
            rows = [row._replace(path=local.get(row.path, row.path)) for row in rows]
        size = max(1, len(rows) // 1000)  # some 1,000 slices for `num_proc` to share out, whatever the archives are
        slices = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [datasets.SplitGenerator(name=datasets.Split.TRAIN, gen_kwargs={"slices": slices})]

    def _generate_examples(self, slices: list[list[Row]]) -> Iterator[tuple[str, dict]]:
        rows = itertools.chain.from_iterable(slices)
        for example in examples(rows, self.config.uncertainty, self._options):
            yield example["filename"], example


def load(
    source: str | os.PathLike[str] | None = None,
    *,
    split: str | None = "train",
    streaming: bool = False,
    num_proc: int | None = None,
    uncertainty: str = "zeros",
    on_mismatch: str = "error",
    cache_dir: str | os.PathLike[str] | None = None,
) -> Any:
    """Does what `load_dataset` does with this script, on any version of `datasets`; 4 and later take no scripts.

    Args:
        source: As `data_dir` of `SynthCheX75KConfig`, where `uncertainty` and `on_mismatch` are too.
        split: `"train"`, or a part such as `"train[:10%]"` if not streaming, or None for a dict of the splits.
        streaming: Read each row when it is iterated over; download and cache nothing.
        num_proc: Processes that build the cache. Default: this one alone.
        cache_dir: Folder of the cache. Default: that of `datasets`.

    Returns:
        A `Dataset` or, when streaming, an `IterableDataset`; for `split=None` a dict of them.

    Raises:
        SourceError: The source, or an image in it, cannot be used.

    Example:
        >>> load("tests/fixture", split="train[:50%]").num_rows
        6
    """
    if streaming and num_proc is not None:
        raise ValueError("num_proc builds the cache and streaming=True builds none: leave one of them out")
    builder = SynthCheX75K(
        cache_dir=cache_dir and os.fspath(cache_dir),
        base_path=os.path.dirname(os.path.abspath(__file__)),
        data_dir=source and os.fspath(source),
        uncertainty=uncertainty,
        on_mismatch=on_mismatch,
    )
    if streaming:
        return builder.as_streaming_dataset(split=split)
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, SourceError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split=split)


def list_files(source: str, options: Options | None = None) -> Files:
    """Lists the archives, CSVs and images of a source (as in `plan`), at any depth, in the order of the plan."""
    fs, root = _filesystem(source, options)
    if not fs.exists(root):
        raise SourceError(f"{source}: no such file or folder. Check the address, and your access to it.")
    single = _kind(root) == "archive" and not fs.isdir(root)
    found = {root: fs.info(root)} if single else fs.find(root, detail=True)
    start = len(root.rpartition("/")[0] if single else root.rstrip("/")) + 1
    files = {}
    for path, info in found.items():
        name = urllib.parse.unquote(path[start:]) if path.startswith("http") else path[start:]
        files[name] = {**info, "name": path if "file" in fs.protocol else fs.unstrip_protocol(path)}
    return {name: files[name] for name in sorted(files, key=lambda name: (_kind(name), name)) if _kind(name)}


def _find_source(
    data_dir: str | None, base_path: str | None, options: Options | None = None, local: bool = False
) -> tuple[str, Files]:
    """Returns the source's address and files, by the rule of `SynthCheX75KConfig`; with `local`, no remote files."""
    if data_dir is None and base_path and not (local and "://" in base_path):
        files = list_files(base_path, options)
        own = {name: files[name] for name in files if not re.match(r"\.|tests/|scripts/", name)}
        if any(_kind(name) != "image" and "/" not in name.removeprefix("data/") for name in own):
            return base_path, own
    source = data_dir or PUBLISHED_SOURCE
    return source, {} if local and "://" in source else list_files(source, options)


def _filesystem(address: str, options: Options | None) -> tuple[fsspec.AbstractFileSystem, str]:
    hub = re.escape(datasets.config.HF_ENDPOINT)  # `datasets` < 4 gives the repo of a script as such an address
    address = re.sub(rf"^{hub}/(datasets/[^/]+/[^/]+)/(?:resolve|tree)/([^/]+)", r"hf://\1@\2", address)
    given = (options or {}).get(address.split("://")[0], {})
    defaults = {"client_kwargs": {"trust_env": True}} if address.startswith("http") else {}  # heed proxy variables
    return fsspec.core.url_to_fs(address, **{**defaults, **given})


def _kind(name: str) -> str:
    """Tells archive, csv, image (so sorted, the order of the plan) or, empty, what is not ours: see a Mac's zips."""
    suffix = "" if re.search(r"(^|/)(__MACOSX/|\._[^/]*$)", name) else name.lower().rpartition(".")[2]
    return {"zip": "archive", "tar": "archive", "csv": "csv", "png": "image"}.get(suffix, "")


def _basename(path: str) -> str:
    return re.split(r"[/\\]", path.strip())[-1]


def _members(file: str, info: dict[str, Any], options: Options | None) -> Iterator[tuple[Row, Any]]:
    """Yields the images and CSVs that a file is or holds: where, and of a CSV the lines."""
    fs, root = _filesystem(info["name"], options)
    if _kind(file) != "archive":
        lines: Any = io.BytesIO(fs.cat_file(root)) if _kind(file) == "csv" else None
        yield Row(_basename(file), info["name"], file, 0, None, info["size"]), lines
    elif file.lower().endswith(".zip"):
        with fs.open(root, "rb", cache_type="none") as handle, zipfile.ZipFile(handle) as members:
            yield from _zip_members(file, info["name"], members)
    else:
        with fs.open(root, "rb") as handle, tarfile.open(fileobj=handle, mode="r:") as archive:
            for entry in archive:
                if _kind(entry.name) and entry.isreg():
                    lines = archive.extractfile(entry) if _kind(entry.name) == "csv" else None
                    place = (f"{file}: {entry.name}", entry.offset_data, entry.size, entry.size)
                    yield Row(_basename(entry.name), info["name"], *place), lines
            handle.seek(archive.offset)
            if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # `tarfile` takes damage for the end
                raise tarfile.TarError(f"damaged or cut off at byte {archive.offset}")


def _zip_members(file: str, path: str, archive: zipfile.ZipFile) -> Iterator[tuple[Row, Any]]:
    starts = sorted(entry.header_offset for entry in archive.infolist())
    ends = dict(zip(starts, [*starts[1:], archive.start_dir]))
    for entry in archive.infolist():
        name, start, length = entry.filename, entry.header_offset, ends[entry.header_offset] - entry.header_offset
        if not _kind(name):
            continue
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{name} is encrypted, or neither stored nor deflated")
        if start < 0 or length < 30 + entry.compress_size:
            raise zipfile.BadZipFile(f"{name} lies outside the archive or over its neighbour")
        zipped = entry.compress_type, entry.compress_size, entry.CRC
        lines: Any = io.BufferedReader(archive.open(entry), 1 << 20) if _kind(name) == "csv" else None
        yield Row(_basename(name), path, f"{file}: {name}", start, length, entry.file_size, zipped), lines


def _read_csv(where: str, lines: Iterable[bytes], tables: dict[str, dict[str, Any]], problems: Problems) -> None:
    reader = csv.DictReader(_decoded(lines), strict=True)
    try:
        header = reader.fieldnames = [column.strip() for column in reader.fieldnames or []]
        given = {key: [column for column in header if column in names] for key, names in COLUMNS.items()}
        labels = [column for column in header if column in LABELS]
        missing = [key for key in COLUMNS if not given[key] and (key != "labels" or not labels)]
        missing += [label for label in LABELS if label not in labels and labels and not given["labels"]]
        if missing:
            problems[NO_CSV].append(f"{where} has no {', '.join(missing)}")
            return
        rows = tables[where] = {}
        if max(map(len, given.values())) > 1 or len(labels) > len(set(labels)) or (labels and given["labels"]):
            problems["doubled column; leave one for each meaning"].append(f"{where}: {', '.join(header)}")
            return
        for row in reader:
            if None in row or None in row.values():
                raise csv.Error(f"more or fewer fields than the {len(header)} columns")
            at = f"{where} line {reader.line_num - sum(field.count(chr(10)) for field in row.values())}"
            filename, prompt = _basename(row[given["filename"][0]]), row[given["prompt"][0]]
            if not filename:
                problems["empty file name; name the image"].append(at)
            if not prompt.strip():
                problems["empty prompt; write the text that made the image"].append(at)
            if filename in rows:
                problems["file name twice in the CSV; remove or rename one"].append(f"{at}: {filename}")
            cell = tuple((name, row[name]) for name in labels) or row[given["labels"][0]]
            rows[filename] = at, prompt, ()
            try:
                rows[filename] = at, prompt, _labels(cell)
            except ValueError as error:
                problems["bad labels; give each of the 14 once, as 1, 0, -1 or nothing"].append(f"{at}: {error}")
    except (csv.Error, UnicodeDecodeError) as error:
        kind = "unreadable CSV; it must be UTF-8 text, comma-separated, as many fields in each row as columns"
        line = reader.reader.line_num + isinstance(error, UnicodeDecodeError)  # the reader has not seen that one
        problems[kind].append(f"{where} line {line}: {error}")


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if b"\0" in line:  # an error of Python 3.10's csv, data to that of 3.11
            raise csv.Error(f"a NUL byte in line {number + 1}")
        yield line.decode("utf-8" if number else "utf-8-sig")


@functools.lru_cache(maxsize=8192)  # few of a release's label cells differ, and to parse each takes seconds
def _labels(cell: str | tuple[tuple[str, str], ...]) -> Labels:
    """Reads the 14 raw labels from as many columns, or from a cell with a Python dict literal or JSON object."""
    try:
        bare = re.sub(r"\b(nan|null)\b", "None", cell, flags=re.IGNORECASE) if isinstance(cell, str) else ""
        labels = dict(ast.literal_eval(bare.strip()).items() if isinstance(cell, str) else cell)
    except (AttributeError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"{cell[:40]!r} is no dict of labels") from None
    raw = {name: str(value).strip().lower() for name, value in labels.items()}
    wrong = [f"{label!r} is missing" for label in LABELS if label not in raw]
    wrong += [f"{name!r} is too many" for name in raw if name not in LABELS]
    wrong += [f"{name!r} is {labels[name]!r}" for name in raw if raw[name] not in RAW_LABELS]
    if bare.count(":") > len(raw):  # of a key given twice, the dict keeps one
        wrong.append("a label is there twice")
    if wrong:
        raise ValueError(", ".join(wrong[:3]))
    return tuple(RAW_LABELS[raw[label]] for label in LABELS)


def _join(images: dict[str, Row], tables: dict[str, Any], problems: Problems, on_mismatch: str) -> list[Row]:
    rows = {name: row for table in tables.values() for name, row in table.items()}
    lone_images = [image.where for name, image in images.items() if name not in rows]
    lone_rows = [f"{rows[name][0]}: {name}" for name in rows if name not in images]
    joined = [images[name]._replace(prompt=rows[name][1], labels=rows[name][2]) for name in images if name in rows]
    other_csvs = problems.pop(NO_CSV, ["there is no .csv at all"])  # nothing wrong with them beside the right one
    if len(tables) > 1:
        problems["several metadata CSVs; leave one"] += tables
    if any(kind.startswith(("unreadable", "doubled")) for kind in problems):
        return joined  # what seems to be missing may lie in what was not read
    if not images:
        problems["no archive or image; check the address"].append("nothing that ends in .zip, .tar or .png")
    if not tables:
        problems[NO_CSV] = other_csvs
    elif images and (on_mismatch == "error" or not joined):
        problems['image without a row; add the row, or pass on_mismatch="skip"'] += lone_images
        problems['row without an image; add the image, or pass on_mismatch="skip"'] += lone_rows
    elif lone_images or lone_rows:
        logger.warning("left out %d images without a row, %d rows without an image", len(lone_images), len(lone_rows))
    return joined


def _read_png(handle: Any, row: Row) -> bytes:
    handle.seek(row.offset)
    data = handle.read(MAX_IMAGE_BYTES + 1 if row.length is None else row.length)
    if row.zipped:
        method, packed, crc = row.zipped
        try:
            data = data[30 + sum(struct.unpack_from("<HH", data, 26)) :][:packed]  # after header, name, extra field
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_IMAGE_BYTES)
        except (struct.error, zlib.error):
            data = b""  # which fails the check that follows
        if not data or zlib.crc32(data) != crc:
            raise SourceError(f"{row.where}: CRC error, the archive is damaged; get it again")
    if row.size not in (None, len(data)):
        raise SourceError(f"{row.where}: {len(data)} bytes, not the {row.size} of before: it changed; start again")
    if not (data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and data[-8:-4] == b"IEND"):
        raise SourceError(f"{row.where}: not a whole PNG file; generate or copy it again")
    return data
