"""SynthCheX-75K: 75,649 synthetic chest radiographs, each with the prompt that generated it and 14 CheXpert labels.

A *source* is a folder of PNG images, loose or in `.zip` or `.tar` archives, and one metadata CSV. `plan` checks it
without reading an image; `examples` reads rows of a plan. Nothing in a source is executed or unpacked to the disk.
"""

import ast
import collections
import contextlib
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

PUBLISHED_SOURCE = "hf://datasets/raman07/SynthCheX-75K@main"
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
USUAL_ITEM = re.compile(rf"""(['"])({"|".join(LABELS)})\1: (-?1|-?1\.0|0|-?0\.0|None|null|nan|NaN)(?:, |$)""")
UNCERTAINTY: dict[str, dict[int | None, int | None]] = {  # as in the CheXpert paper, arXiv 1901.07031
    "zeros": {1: 1, 0: 0, -1: 0, None: 0},
    "ones": {1: 1, 0: 0, -1: 1, None: 0},
    "keep": {1: 1, 0: 0, -1: -1, None: None},
}
FEATURES = datasets.Features(
    {"image": datasets.Image(), "filename": datasets.Value("string"), "prompt": datasets.Value("string")}
    | {"labels_dict": {label: datasets.Value("int8") for label in LABELS}}
)
HOMEPAGE = "https://huggingface.co/datasets/raman07/SynthCheX-75K"
CITATION = """@article{dutt2025chexgenbench,
  title   = {CheXGenBench: A Unified Benchmark For Fidelity, Privacy and Utility of Synthetic Chest Radiographs},
  author  = {Dutt, Raman and Sanchez, Pedro and Yao, Yongchen and McDonagh, Steven and Tsaftaris, Sotirios A. and Hospedales, Timothy},
  journal = {arXiv preprint arXiv:2505.10496},
  year    = {2025}
}"""  # noqa: E501
KINDS = {"zip": "archive", "tar": "archive", "csv": "csv", "png": "image", "jpg": "jpeg", "jpeg": "jpeg"}
MAX_IMAGE_BYTES = 64 << 20
NO_CSV = f"no metadata CSV; it has the columns {', '.join('/'.join(names) for names in COLUMNS.values())} or 14 labels"
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, ValueError, EOFError, RuntimeError)
DAMAGED = "unreadable archive; get it again, or repack it as plain zip or tar"
NO_RANGES = "unreadable: the server ignores range requests; download the folder and load that, or serve it with nginx"
BROKEN_LINK = "link to a file that does not exist; restore the file or remove the link"
Files = dict[str, dict[str, Any]]  # fsspec's info by name below the source; its "name" is the full address
Options = dict[str, dict[str, Any]] | None  # fsspec's options by protocol, such as {"hf": {"token": "…"}}
logger = logging.getLogger(__name__)


class SourceError(ValueError):
    """A source that cannot be used as it is; the message names the problem, the place and what to do."""


class Row(NamedTuple):
    """One row of a plan: the place of its image, its prompt and its raw labels."""

    filename: str
    path: str  # of the archive or of the image itself
    where: str  # for messages: the path below the source, and the name of an archive's member
    offset: int  # of the image's bytes in `path`; in a zip, of the member's header
    length: int | None  # bytes to read from there; None: all of `path`
    size: int | None  # of the image, unpacked; None: unknown (the server sends no Content-Length)
    zipped: tuple[int, int, int] | None = None  # in a zip: method, packed size, CRC-32
    prompt: str = ""
    labels: tuple[int | None, ...] = ()  # raw: 1, 0, -1 or None, in the order of LABELS


def plan(source: str, on_mismatch: str = "error", options: Options = None, files: Files | None = None) -> list[Row]:
    """Joins the images and the metadata of a source, and checks all that can be checked without reading an image.

    Args:
        source: Folder or one archive, see `load`.
        on_mismatch: `"error"`, or `"skip"` to leave out images without a row and rows without an image.
        options: fsspec's options by protocol.
        files: The files of the source to use. Default: all, as from `list_files`.

    Returns:
        The rows in order: archives by name, each with its members in their order, then loose images by path.

    Raises:
        SourceError: All problems: for each kind what to do, how many places, and the first five.
    """
    problems: dict[str, list[str]] = collections.defaultdict(list)  # places by kind of problem
    found: dict[str, list[Row]] = {"image": [], "jpeg": []}
    tables: dict[str, dict[str, Any]] = {}  # by CSV and file name: place, prompt, labels
    for file, info in (files or list_files(source, options)).items():
        if os.path.islink(info["name"]) and not os.path.exists(info["name"]):
            problems[BROKEN_LINK].append(f"{file} -> {os.readlink(info['name'])}")
            continue
        with _remote_errors(info["name"]):
            try:
                for row, csv_lines in _members(file, info, options):
                    if csv_lines is not None:
                        _read_csv(row.where, csv_lines, tables, problems)
                    else:
                        found["jpeg" if _kind(row.filename) == "jpeg" else "image"].append(row)
            except DAMAGE as error:
                kind = NO_RANGES if " HTTP " in str(error) else DAMAGED  # fsspec's: no ranges
                problems[kind].append(file if kind == NO_RANGES else f"{file}: {error}")
    rows = _join(found, tables, problems, on_mismatch)
    lines = [f"- {k}{f' ({len(at)} in all)' * (len(at) > 1)}: {'; '.join(at[:5])}" for k, at in problems.items() if at]
    if lines:
        raise SourceError("\n".join([f"{source} cannot be used as it is", *lines]))
    return rows


def examples(rows: Iterable[Row], uncertainty: str = "zeros", options: Options = None, read_ahead: int = 0) -> Iterator:
    """Reads rows of a plan, each when it is iterated over.

    Args:
        rows: Rows of `plan`, any of them.
        uncertainty: Label policy, a key of `UNCERTAINTY`.
        options: fsspec's options by protocol.
        read_ahead: Bytes per request to a remote source. Default: one request for each image, of exactly its bytes.

    Yields:
        Rows as in `FEATURES`; the image is the unchanged bytes of its PNG file.

    Raises:
        SourceError: An image is not the whole PNG file that was planned; the message names archive and member.
    """
    policy = UNCERTAINTY[uncertainty]
    for path, group in itertools.groupby(rows, key=lambda row: row.path):
        fs, root = _filesystem(path, options)
        cache = {"cache_type": "readahead", "block_size": read_ahead} if read_ahead else {"cache_type": "none"}
        with fs.open(root, "rb", **cache) as handle:
            for row in group:
                image = {"path": row.filename, "bytes": _read_png(handle, row)}
                labels = {label: policy[raw] for label, raw in zip(LABELS, row.labels)}
                yield {"image": image, "filename": row.filename, "prompt": row.prompt, "labels_dict": labels}


@dataclasses.dataclass
class SynthCheX75KConfig(datasets.BuilderConfig):
    """Keywords of `load_dataset`, explained in `load`, where data_dir is called source.

    Its default is the folder or Hub repository of this script, by the rule in `load`, or else the published release.
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
        # The hash is in the name of the cache folder: a local source that has changed is not read from an old cache.
        files = _find_source(kwargs.get("data_dir"), kwargs.get("base_path"), None, local=True)[1]
        state = [(name, info["size"], info["mtime"]) for name, info in files.items()]
        hash = hashlib.sha256(repr((hash, state)).encode()).hexdigest() if files else hash
        super().__init__(*args, hash=hash, **kwargs)
        self._options: Options = {"hf": {"token": self.token}, **self.storage_options}

    def _info(self) -> datasets.DatasetInfo:
        description = str(__doc__).partition("\n")[0]
        return datasets.DatasetInfo(description, CITATION, HOMEPAGE, license="Apache-2.0", features=FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Download in threads: a forked process would inherit fsspec's event loop without its thread, and hang.
        dl_manager.download_config.num_proc = None
        source, files = _find_source(self.config.data_dir, self.base_path, self._options, local=False)
        with _remote_errors(source):
            for info in files.values():
                if info["name"].lower().endswith(".tar"):  # it has no directory: listing it means reading all of it
                    info["name"] = dl_manager.download(info["name"])  # when streaming, the same address
            rows = plan(source, self.config.on_mismatch, self._options, files)
            local = dl_manager.download({row.path: row.path for row in rows if "://" in row.path})
            rows = [row._replace(path=local.get(row.path, row.path)) for row in rows]
        size = max(1, len(rows) // 1000)  # about 1,000 slices to divide among `num_proc` processes
        slices = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [datasets.SplitGenerator(name=datasets.Split.TRAIN, gen_kwargs={"slices": slices})]

    def _generate_examples(self, slices: list[list[Row]]) -> Iterator[tuple[str, dict]]:
        with _remote_errors(slices[0][0].path):
            for example in examples(itertools.chain.from_iterable(slices), self.config.uncertainty, self._options):
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
    """Loads the dataset, on every version of `datasets`; from version 4 on, its `load_dataset` runs no scripts.

    Args:
        source (str or PathLike): Folder that holds PNG images, loose or in `.zip` or `.tar` archives, and one metadata
            CSV, or a single archive of both: a path or an address that fsspec opens, such as `https://host/folder/` or
            `hf://datasets/user/repo@revision`. Default: the folder of this file (all but `tests/`, `scripts/` and
            hidden files) if an archive or a metadata CSV is at its top or in `data/` and it is not site-packages; else
            the published release, a download of 20.1 GB.
        split (str): `"train"` (default), if not streaming a part such as `"train[:10%]"`, or None for a dict of splits.
        streaming (bool): Read each row when it is iterated over, without download and cache. Default: False.
        num_proc (int): Number of processes that build the cache. Default: this process only.
        uncertainty (str): What the raw labels 1 (positive), 0 (negative), -1 (uncertain) and None (not mentioned)
            become: `"zeros"` (U-Zeros, default) 1, 0, 0, 0; `"ones"` (U-Ones) 1, 0, 1, 0; `"keep"` 1, 0, -1, None.
        on_mismatch (str): `"error"` (default), or `"skip"` to leave out images without a row and rows without an image.
        cache_dir (str or PathLike): Default: the cache of `datasets`.

    Returns:
        A `Dataset` or, when streaming, an `IterableDataset`; for `split=None` a dict of them.

    Raises:
        ValueError: A parameter is wrong, or, as its subclass SourceError: the source or an image in it cannot be used.

    Example:
        >>> load("tests/fixture", split="train[:50%]").num_rows
        6
    """
    if streaming and num_proc is not None:
        raise ValueError("num_proc builds the cache and streaming=True builds none: leave one of them out")
    keywords: Any = {"data_dir": source and os.fspath(source), "uncertainty": uncertainty, "on_mismatch": on_mismatch}
    builder = SynthCheX75K(cache_dir, base_path=os.path.dirname(os.path.abspath(__file__)), **keywords)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, SourceError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split=split)


def list_files(source: str, options: Options = None) -> Files:
    """Lists the archives, CSVs and images of a source (see `load`), at any depth, in the order of the plan."""
    fs, root = _filesystem(source, options)
    if "file" in fs.protocol and not os.path.exists(root):
        link = f" -> {os.readlink(root)}" if os.path.islink(root) else ""
        hub = f', or for the Hub pass "hf://datasets/{source}"' * bool(re.fullmatch(r"\w[\w.-]*/\w[\w.@-]*", source))
        raise SourceError(f"{source}{link}: no such file or folder. Check the path{hub}.")
    with _remote_errors(source):
        info = fs.info(root, **{"expand_info": False} if "hf" in fs.protocol else {})  # True reads all commits
        single = _kind(root) == "archive" and info["type"] != "directory"
        found = {root: info} if single else fs.find(root, detail=True)
    if root in found and not single:
        raise SourceError(f"{source}: not a folder or archive. Pass its folder: {os.path.dirname(source) or '.'}")
    start = len(root.rpartition("/")[0] if single else root.rstrip("/")) + 1
    files = {}
    for path, info in found.items():
        name = urllib.parse.unquote(path[start:]) if path.startswith("http") else path[start:]
        files[name] = {**info, "name": path if "file" in fs.protocol else fs.unstrip_protocol(path)}
    return {name: files[name] for name in sorted(files, key=lambda name: (_kind(name), name)) if _kind(name)}


def _find_source(data_dir: str | None, base_path: str | None, options: Options, local: bool) -> tuple[str, Files]:
    """Returns the source's address and files, by the rule in `load`; with `local`, no files of a remote source."""
    if data_dir is None and base_path and not re.search(r"(site|dist)-packages$", base_path):
        files = {} if local and "://" in base_path else list_files(base_path, options)
        own = {name: info for name, info in files.items() if not re.match(r"\.|tests/|scripts/", name)}
        tables: dict[str, Any] = {}
        for name in (name for name in own if "/" not in name.removeprefix("data/")):
            if _kind(name) == "csv" and own[name]["size"] != 0:  # 0 is a broken link's, too
                fs, root = _filesystem(own[name]["name"], options)
                _read_csv(name, io.BytesIO(fs.head(root, 1 << 16)), tables, collections.defaultdict(list))
            if tables or _kind(name) == "archive":
                return base_path, own
    source = data_dir or PUBLISHED_SOURCE
    return source, {} if local and "://" in source else list_files(source, options)


@contextlib.contextmanager
def _remote_errors(address: str) -> Iterator[None]:
    """Turns an error of a remote file system or of its HTTP client into a SourceError of one line."""
    try:
        yield
    except Exception as error:
        mistake = type(error).__module__ == "builtins" and not isinstance(error, OSError)  # clients have their own
        if mistake or "://" not in address or isinstance(error, SourceError):
            raise
        cause = error.__cause__ or error
        what = f"{type(cause).__name__}: {cause}".partition("\n")[0].rstrip(".")
        login = f", and your login at {datasets.config.HF_ENDPOINT} (`hf auth login`)" * address.startswith("hf://")
        raise SourceError(f"{address} cannot be read: {what}. Check the network and the address{login}.") from None


def _filesystem(address: str, options: Options) -> tuple[fsspec.AbstractFileSystem, str]:
    hub = re.escape(datasets.config.HF_ENDPOINT)  # `datasets` < 4 gives the repo of a script as such an address
    address = re.sub(rf"^{hub}/(datasets/[^/]+/[^/]+)/(?:resolve|tree)/([^/]+)", r"hf://\1@\2", address)
    defaults = {"client_kwargs": {"trust_env": True}} if address.startswith("http") else {}  # use proxy variables
    return fsspec.core.url_to_fs(address, **{**defaults, **(options or {}).get(address.split("://")[0], {})})


def _kind(name: str) -> str:
    """Returns archive, csv, image, jpeg (in the order of the plan), or "" for other files and for those a Mac adds."""
    mac = re.search(r"(^|/)(__MACOSX/|\._[^/]*$)", name)
    return "" if mac else KINDS.get(name.lower().rpartition(".")[2], "")


def _basename(path: str) -> str:
    return re.split(r"[/\\]", path.strip())[-1]


def _members(file: str, info: dict[str, Any], options: Options) -> Iterator[tuple[Row, Any]]:
    """Yields the images and CSVs that a file is or contains: the place, and of a CSV the lines."""
    fs, root = _filesystem(info["name"], options)
    if _kind(file) != "archive":
        lines: Any = io.BytesIO(fs.cat_file(root)) if _kind(file) == "csv" else None
        yield Row(_basename(file), info["name"], file, 0, None, info["size"]), lines
    elif file.lower().endswith(".zip"):
        with fs.open(root, "rb", cache_type="none") as handle, zipfile.ZipFile(handle) as archive:
            starts = sorted(entry.header_offset for entry in archive.infolist())
            ends = dict(zip(starts, [*starts[1:], archive.start_dir]))
            for entry in [entry for entry in archive.infolist() if _kind(entry.filename)]:
                name, start = entry.filename, entry.header_offset
                length = ends[start] - start
                if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise zipfile.BadZipFile(f"{name} is encrypted, or neither stored nor deflated")
                if start < 0 or length < 30 + entry.compress_size:
                    raise zipfile.BadZipFile(f"{name} lies outside the archive or overlaps the next member")
                zipped = entry.compress_type, entry.compress_size, entry.CRC
                lines = io.BufferedReader(archive.open(entry), 1 << 20) if _kind(name) == "csv" else None
                place = (f"{file}: {name}", start, length, entry.file_size)
                yield Row(_basename(name), info["name"], *place, zipped), lines
    else:
        with fs.open(root, "rb") as handle, tarfile.open(fileobj=handle, mode="r:") as tar:
            for member in tar:
                if _kind(member.name) and member.isreg():
                    place = (f"{file}: {member.name}", member.offset_data, member.size, member.size)
                    lines = tar.extractfile(member) if _kind(member.name) == "csv" else None
                    yield Row(_basename(member.name), info["name"], *place), lines
            handle.seek(tar.offset)
            if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # `tarfile` stops at damage silently
                raise tarfile.TarError(f"damaged or cut off at byte {tar.offset}")


def _read_csv(where: str, lines: Iterable[bytes], tables: dict, problems: dict[str, list[str]]) -> None:
    reader = csv.DictReader((line.decode("utf-8" if n else "utf-8-sig") for n, line in enumerate(lines)), strict=True)
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
            problems["doubled column; keep one for each meaning"].append(f"{where}: {', '.join(header)}")
            return
        for row in reader:
            if None in row or None in row.values() or "\0" in "".join(row.values()):
                raise csv.Error(f"more or fewer fields than the {len(header)} columns, or a NUL byte")
            at = f"{where} line {reader.line_num - sum(field.count(chr(10)) for field in row.values())}"
            filename, prompt = _basename(row[given["filename"][0]]), row[given["prompt"][0]]
            if not filename:
                problems["empty file name; name the image"].append(at)
            if not prompt.strip():
                problems["empty prompt; write the text that generated the image"].append(at)
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
        line = reader.reader.line_num + isinstance(error, UnicodeDecodeError)  # not counted yet
        problems[kind].append(f"{where} line {line}: {error}")


@functools.lru_cache(maxsize=8192)  # most label cells of a release repeat
def _labels(cell: Any) -> tuple[int | None, ...]:
    """Reads the 14 raw labels from as many columns, or from a cell with a Python dict literal or JSON object."""
    usual = USUAL_ITEM.findall(cell[1:-1]) if isinstance(cell, str) else []
    values = {label: RAW_LABELS.get(value) for _, label, value in usual}
    if len(usual) == len(values) == len(LABELS) and cell[0] + USUAL_ITEM.sub("", cell[1:-1]) + cell[-1] == "{}":
        return tuple([values[label] for label in LABELS])  # 7 times faster than the parser
    try:
        bare = re.sub(r"\b(nan|null)\b", "None", cell, flags=re.IGNORECASE) if isinstance(cell, str) else ""
        labels = dict(ast.literal_eval(bare.strip()).items() if isinstance(cell, str) else cell)
    except (AttributeError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"{cell[:40]!r} is not a dict of labels") from None
    raw = {name: str(value).strip().lower() for name, value in labels.items()}
    wrong = [f"{label!r} is missing" for label in LABELS if label not in raw]
    wrong += [f"{name!r} is not a label" for name in raw if name not in LABELS]
    wrong += [f"{name!r} is {labels[name]!r}" for name in raw if raw[name] not in RAW_LABELS]
    wrong += ["a label is given twice"] * (bare.count(":") > len(raw))  # a dict keeps only one of two equal keys
    if wrong:
        raise ValueError(", ".join(wrong[:3]))
    return tuple(RAW_LABELS[raw[label]] for label in LABELS)


def _join(found: dict[str, list[Row]], tables: dict, problems: dict, on_mismatch: str) -> list[Row]:
    images: dict[str, Row] = {}
    for row in found["image"]:
        first = images.setdefault(row.filename, row)
        if first is not row:
            problems["file name twice among the images; remove or rename one"].append(f"{first.where} and {row.where}")
        if row.size == 0 or (row.size or 0) > MAX_IMAGE_BYTES:
            problems[f"{'image over 64 MiB unpacked' if row.size else 'empty image'}; get it again"].append(row.where)
    rows = {name: row for table in tables.values() for name, row in table.items()}
    lone_images = [image.where for name, image in images.items() if name not in rows]
    lone_rows = [f"{rows[name][0]}: {name}" for name in rows if name not in images]
    joined = [images[name]._replace(prompt=rows[name][1], labels=rows[name][2]) for name in images if name in rows]
    other_csvs = problems.pop(NO_CSV, ["no .csv file"])  # no problem beside the metadata CSV
    problems["several metadata CSVs; keep one"] += list(tables) if len(tables) > 1 else []
    if any(kind.startswith(("unreadable", "doubled", "link")) for kind in problems):
        return joined  # a seemingly missing image or row may be in a file that was not read
    if not images:
        kind = "JPEG images only; convert them to PNG" if found["jpeg"] else "no archive or image; check the address"
        problems[kind] = [row.where for row in found["jpeg"]] or ["nothing that ends in .zip, .tar or .png"]
    if not tables:
        problems[NO_CSV] = other_csvs
    elif images and (on_mismatch == "error" or not joined):
        problems['image without a row; add the row, or pass on_mismatch="skip"'] += lone_images
        problems['row without an image; add the image, or pass on_mismatch="skip"'] += lone_rows
    elif images and (lone_images or lone_rows):
        logger.warning("left out %d images without a row, %d rows without an image", len(lone_images), len(lone_rows))
    return joined


def _read_png(handle: Any, row: Row) -> bytes:
    handle.seek(row.offset)
    data = handle.read(MAX_IMAGE_BYTES + 1 if row.length is None else row.length)
    if row.zipped:
        method, packed, crc = row.zipped
        with contextlib.suppress(struct.error, zlib.error):  # after which the CRC differs
            data = data[30 + sum(struct.unpack_from("<HH", data, 26)) :][:packed]  # after header, name, extra field
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_IMAGE_BYTES)
        if not data or zlib.crc32(data) != crc:
            raise SourceError(f"{row.where}: CRC error, the archive is damaged; get it again")
    if row.size not in (None, len(data)):
        raise SourceError(f"{row.where}: {len(data)} bytes instead of the planned {row.size}; it changed, start again")
    if not (data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and data[-8:-4] == b"IEND"):
        raise SourceError(f"{row.where}: not a whole PNG file; generate or copy it again")
    return data
