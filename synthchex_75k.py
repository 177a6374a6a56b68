"""SynthCheX-75K: 75,649 synthetic chest radiographs, each with the prompt that generated it and 14 CheXpert labels.

A *source* is a folder of PNG or JPEG images, loose or in `.zip` or `.tar` archives, and one metadata CSV. `plan` checks
it without reading an image; `examples` reads rows of a plan. Nothing in a source is executed or unpacked to the disk.
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
import stat
import struct
import tarfile
import time
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import datasets
import fsspec
import huggingface_hub

try:  # 9 times faster, where it is installed
    from zlib_ng.zlib_ng import crc32 as crc32
except ImportError:
    from zlib import crc32 as crc32

PUBLISHED_SOURCE = "hf://datasets/raman07/SynthCheX-75K@main"
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
COLUMNS = {  # accepted names; the labels can also be 14 columns, and `path` counts only without another file name
    "filename": ("filename", "synthetic_filename", "img_savename", "file_name", "path"),
    "prompt": ("prompt", "annotated_prompt"),
    "labels": ("labels_dict", "chexpert_labels"),
}
RAW_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-0.0": 0, "-1": -1, "-1.0": -1, "": None, "none": None, "nan": None}
SPACE = r"[ \t\n]{0,32}"
USUAL_ITEM = re.compile(
    rf"""{SPACE}(['"])({"|".join(LABELS)})\1{SPACE}:{SPACE}(-?1|-?1\.0|0|-?0\.0|None|null|nan|NaN){SPACE}(?:,|$)"""
)
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
KINDS = {"zip": "archive", "tar": "archive", "csv": "csv", "png": "image", "jpg": "image", "jpeg": "image"}
MEMBERS = ("csv", "image")  # what is read of an archive
# Bounds, which real data never meets: no source takes more time and memory than they allow.
MAX_IMAGE_BYTES = 64 << 20
MAX_PIXELS = 1 << 26  # of an image: 8,192 x 8,192
MAX_SEGMENTS = 1 << 11  # of a JPEG: twice as many as the largest of 64 KiB that 64 MiB hold
MAX_ROWS = 1 << 20  # of a metadata CSV
MAX_MEMBERS = 1 << 21  # of a zip, for a Mac adds one to each image; and lines of a CSV, for a prompt may have several
MAX_CSV_BYTES, MAX_LINE = 1 << 30, 1 << 20  # of a CSV, and of a line of it
MAX_CSVS = 1000  # in an archive
MAX_LABELS = 4096  # characters of a dict of labels
MAX_READ = {"zip": 512 << 20, "tar": 16 << 10}  # bytes of a zip's directory, and of a header in a tar
MAX_PROBLEMS = 1000  # of a kind in a CSV, after which it is not read further
CHECK_INTERVAL = 1.0  # seconds between comparisons of a source's files with the plan
NO_CSV = f"no metadata CSV; it has the columns {', '.join('/'.join(names) for names in COLUMNS.values())} or 14 labels"
DAMAGE: tuple = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error)
DAMAGE += (ValueError, EOFError, RuntimeError, IndexError, OverflowError)  # of `zipfile` and `tarfile`, too
DAMAGED = "unreadable archive; get it again, or repack it as plain zip or tar"
NO_RANGES = "unreadable: the server ignores range requests; download the folder and load that, or serve it with nginx"
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"  # how the files begin
JPEG_MARKER = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")  # a stuffed zero, a fill byte and a restart are among the pixels
JPEG_TABLES = (0xC4, 0xC8, 0xCC)  # markers among those of a frame that are none: Huffman tables, reserved, conditioning
BROKEN_LINK = "link to a file that does not exist; restore the file or remove the link"
NO_FILE = "not a regular file but a pipe, socket, device, or link to a folder; remove it"
NOT_READ = ("unread", "doubled", "link", "not a regular", "several")  # a missing image or row may be in such a file
Files = dict[str, dict[str, Any]]  # by name below the source, what `file_info` returns
Options = dict[str, dict[str, Any]] | None  # fsspec's options by protocol, such as {"hf": {"token": "…"}}
logger = logging.getLogger(__name__)

# A large block, freed at once. From then on glibc keeps the memory of freed images for the next ones (mallopt(3): its
# thresholds follow the largest such block, up to 32 MiB). Else each image costs page faults, a quarter of a build.
bytes(31 << 20)


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
    versions: tuple[tuple[str, str], ...] = ()  # of the files it was planned from: address, version of `file_info`


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
    found: dict[str, list] = {"image": [], "archive": []}
    tables: dict[str, dict[str, Any]] = {}  # by CSV and file name: line, prompt, labels
    versions: dict[str, tuple] = {}  # by address; of the CSV, by ""
    for file, info in (files or list_files(source, options)).items():
        if info["type"] != "file":
            target = f" -> {os.readlink(info['name'])}" if os.path.islink(info["name"]) else ""
            problems[BROKEN_LINK if info["type"] == "broken link" else NO_FILE].append(f"{file}{target}")
            continue
        versions[info["name"]] = ((info["name"], info["version"]),) if info.get("version") else ()
        found["archive"] += [file] * (kind_of(file) == "archive")
        with _remote_errors(info["name"]):
            try:
                for row, csv_lines in members_of(file, info, options):
                    if csv_lines is None:
                        found["image"].append(row)
                    elif read_csv(row.where, csv_lines, tables, problems):
                        versions[""] = versions[info["name"]]
            except DAMAGE as error:
                kind = NO_RANGES if " HTTP " in str(error) else DAMAGED  # fsspec's: no ranges
                problems[kind].append(file if kind == NO_RANGES else f"{file}: {error}")
    versions = {path: own + versions.get("", ()) for path, own in versions.items()}
    rows = _join(found, tables, versions, problems, on_mismatch)
    lines = [
        f"- {kind}{f' ({len(places)} in all)' * (len(places) > 1)}: {'; '.join(map(printable, places[:5]))}"
        for kind, places in problems.items()
        if places
    ]
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
        Rows as in `FEATURES`; the image is the unchanged bytes of its file.

    Raises:
        SourceError: An image is not the whole PNG or JPEG file that was planned, or a file has changed since; the
            message names archive and member, or the file.
    """
    rows, policy = [*rows], UNCERTAINTY[uncertainty]
    unchecked: dict[str, str] = {}  # versions of the files that were read since the last check
    check_at = time.monotonic() + CHECK_INTERVAL
    for path, group in itertools.groupby(rows, key=lambda row: row.path):
        with _open(path, options, read_ahead) as handle:
            for row in group:
                unchecked.update(row.versions)
                try:
                    image = {"path": row.filename, "bytes": _read_image(handle, row)}
                except SourceError:
                    _check_unchanged(unchecked, options)  # the better reason, if it is one
                    raise
                if row is rows[-1] or time.monotonic() > check_at:
                    _check_unchanged(unchecked, options)
                    unchecked, check_at = {}, time.monotonic() + CHECK_INTERVAL
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
        state = [(name, info.get("version")) for name, info in files.items()]
        hash = hashlib.sha256(repr((hash, state)).encode()).hexdigest() if files else hash
        super().__init__(*args, hash=hash, **kwargs)
        self._options: Options = {"hf": {"token": self.token}, **self.storage_options}

    def _info(self) -> datasets.DatasetInfo:
        description = (__doc__ or "").partition("\n")[0]
        return datasets.DatasetInfo(description, CITATION, HOMEPAGE, license="Apache-2.0", features=FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Download in threads: a forked process would inherit fsspec's event loop without its thread, and hang.
        dl_manager.download_config.num_proc = None
        source, files = _find_source(self.config.data_dir, self.base_path, self._options, local=False)
        downloads = "://" in source and not dl_manager.is_streaming
        with _remote_errors(source):
            remote = {info["name"]: info["version"] for info in files.values() if "version" in info}
            for name, info in files.items():
                if downloads and name.lower().endswith(".tar"):  # without a directory, listing it means reading it
                    files[name] = file_info(dl_manager.download(info["name"]))
            rows = plan(source, self.config.on_mismatch, self._options, files)
            if downloads:  # nothing more is read from the source
                local = dl_manager.download({row.path: row.path for row in rows if "://" in row.path})
                _check_unchanged(remote, self._options)
                rows = [row._replace(path=local.get(row.path, row.path), versions=()) for row in rows]
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
        source (str or PathLike): Folder that holds PNG or JPEG images, loose or in `.zip` or `.tar` archives, and one
            metadata CSV, or a single archive of both: a path or an address that fsspec opens, such as
            `https://host/folder/` or `hf://datasets/user/repo@revision`. Default: the folder of this file (all but
            `tests/`, `scripts/` and hidden files) if an archive or a metadata CSV is at its top or in `data/` and it is
            not site-packages; else the published release, a download of 20.1 GB.
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
    """Lists the archives, CSVs and images of a source (see `load`), at any depth, in the order of the plan.

    A Hub address without a commit gets the newest one, so that every later request reads the same files.
    """
    fs, root = _filesystem(source, options)
    if "file" in fs.protocol and not os.path.exists(root):
        link = f" -> {os.readlink(root)}" if os.path.islink(root) else ""
        hub = f', or for the Hub pass "hf://datasets/{source}"' * bool(re.fullmatch(r"\w[\w.-]*/\w[\w.@-]*", source))
        raise SourceError(f"{source}{link}: no such file or folder. Check the path{hub}.")
    with _remote_errors(source):
        root = _pin_commit(fs, root)
        info = fs.info(root, **{"expand_info": False} if "hf" in fs.protocol else {})  # True reads all commits
        single = kind_of(root) == "archive" and info["type"] != "directory"
        found = {root: info} if single else fs.find(root, detail=True)
        if root in found and not single:
            raise SourceError(f"{source}: not a folder or archive. Pass its folder: {os.path.dirname(source) or '.'}")
        start = len(root.rpartition("/")[0] if single else root.rstrip("/")) + 1
        files = {}
        for path, info in found.items():
            name = urllib.parse.unquote(path[start:]) if path.startswith("http") else path[start:]
            address = path if "file" in fs.protocol else fs.unstrip_protocol(path)
            if kind_of(name):
                # At an address, looking at each image would take a request; a commit on the Hub never changes.
                is_known = "file" not in fs.protocol and (kind_of(name) == "image" or "hf" in fs.protocol)
                files[name] = {**info, "name": address} if is_known else file_info(address, options)
    return {name: files[name] for name in sorted(files, key=lambda name: (kind_of(name), name))}


def file_info(address: str, options: Options = None) -> dict[str, Any]:
    """Looks at a file, as `plan` takes it in `files`.

    Returns:
        fsspec's info with the name as given; the type `"file"` also for a link to a regular file, and `"broken link"`;
        and a `"version"`, which differs after a change: size and time, or elsewhere ETag, size and time if known.
    """
    fs, root = _filesystem(address, options)
    if "file" not in fs.protocol:
        fs.invalidate_cache(root)
        info = fs.info(root)
        times = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created")
        version: Any = [info.get(key) for key in ("ETag", "etag", "size", *times)]
    else:
        try:
            status = os.stat(root)
            info = {"type": "file" if stat.S_ISREG(status.st_mode) else "other", "size": status.st_size}
            version = status.st_size, status.st_mtime_ns
        except OSError:
            info, version = {"type": "broken link"}, None
    return {**info, "name": address, "version": str(version)}


def _find_source(data_dir: str | None, base_path: str | None, options: Options, local: bool) -> tuple[str, Files]:
    """Returns the source's address and files, by the rule in `load`; with `local`, no files of a remote source."""
    if data_dir is None and base_path and not re.search(r"(site|dist)-packages$", base_path):
        files = {} if local and "://" in base_path else list_files(base_path, options)
        own = {name: info for name, info in files.items() if not re.match(r"\.|tests/|scripts/", name)}
        tables: dict[str, Any] = {}
        for name in (name for name in own if "/" not in name.removeprefix("data/")):
            if kind_of(name) == "csv" and own[name]["type"] == "file" and own[name]["size"] != 0:
                fs, root = _filesystem(own[name]["name"], options)
                head = io.BytesIO(fs.head(root, 1 << 16))
                read_csv(name, read_lines(head, None), tables, collections.defaultdict(list))
            if tables or kind_of(name) == "archive":
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


def _pin_commit(fs: fsspec.AbstractFileSystem, root: str) -> str:
    """Returns a path of the Hub with the commit that its revision is now, and any other path as it is."""
    if "hf" not in fs.protocol or not hasattr(at := fs.resolve_path(root), "repo_id"):
        return root
    hub = huggingface_hub.HfApi(fs.endpoint, token=fs.token)
    commit = hub.repo_info(at.repo_id, revision=at.revision, repo_type=at.repo_type).sha
    kind = f"{at.repo_type}s/" if at.repo_type != "model" else ""
    return f"{kind}{at.repo_id}@{commit}/{at.path_in_repo}".rstrip("/")


def _open(address: str, options: Options, read_ahead: int) -> Any:
    """Opens an archive or image of a plan; read_ahead as in `examples`."""
    fs, root = _filesystem(address, options)
    cache = {"cache_type": "readahead", "block_size": read_ahead} if read_ahead else {"cache_type": "none"}
    try:
        return fs.open(root, "rb", **cache)
    except (FileNotFoundError, NotADirectoryError):
        if "file" not in fs.protocol:
            raise
        raise SourceError(f"{printable(address)}: it is gone; restore it, and start again") from None


def _check_unchanged(versions: dict[str, str], options: Options) -> None:
    for address, version in versions.items():
        with _remote_errors(address):
            if file_info(address, options)["version"] != version:
                raise SourceError(f"{printable(address)}: it changed while it was read; start again")


def kind_of(name: str) -> str:
    """Returns archive, csv, image (in the order of the plan), or "" for other files and for those that a Mac adds."""
    kind = KINDS.get(name.rpartition(".")[2].lower(), "")
    return "" if kind and re.search(r"(^|/)(__MACOSX/|\._[^/]*$)", name) else kind


def basename_of(path: str) -> str:
    """Returns the file name at the end of a path of any system: what joins an image and its row."""
    return path.replace("\\", "/").rpartition("/")[2].strip()


def printable(text: str) -> str:
    """Returns a text in one line: what cannot be shown, such as a line break in a file name, becomes an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class _Reader:
    """A file as `zipfile` and `tarfile` read it, with bounds: they believe every number in a header."""

    def __init__(self, handle: Any, kind: str) -> None:
        self.seek, self.tell, self.seekable = handle.seek, handle.tell, handle.seekable
        self._handle, self._kind = handle, kind

    def read(self, size: int = 1 << 17) -> bytes:  # the default is for the end of a zip, which is shorter
        if not 0 <= size <= MAX_READ[self._kind]:
            raise ValueError(f"a header claims {size:,} bytes")
        data: bytes = self._handle.read(size)
        if self._kind == "zip" and data.count(b"PK\1\2") > MAX_MEMBERS:
            raise ValueError(f"more than {MAX_MEMBERS:,} members")
        if self._kind == "tar" and re.search(rb"\d{256}", data):  # `tarfile` of Python < 3.12.6 takes minutes for it
            raise ValueError("a header has a number of 256 digits")
        return data


def members_of(file: str, info: dict[str, Any], options: Options = None) -> Iterator[tuple[Row, Iterator[str] | None]]:
    """Yields the images and CSVs that a file of `list_files` is or contains: the place, and of a CSV the lines."""
    kind, size = kind_of(file), info["size"]
    row = Row(basename_of(file), info["name"], printable(file), 0, None, size)
    if kind == "image":
        yield row, None
        return
    fs, root = _filesystem(info["name"], options)
    if kind == "archive" and size != 0:
        is_zip = file.lower().endswith(".zip")
        with fs.open(root, "rb", **({"cache_type": "none"} if is_zip else {})) as handle:
            for (member, *place), lines in (_zip_members if is_zip else _tar_members)(handle):
                yield Row(basename_of(member), info["name"], printable(f"{file}: {member}"), *place), lines
    elif kind == "archive":
        raise EOFError("it is empty")
    elif kind == "csv" and size != 0:  # an endless file of /proc has the size 0
        with fs.open(root, "rb", block_size=0) as handle:  # 0: one request
            yield row, read_lines(handle, size)
    else:
        yield row, iter(())


def _zip_members(handle: Any) -> Iterator[tuple[tuple, Iterator[str] | None]]:
    """Yields of each image and CSV in a zip its name and, as in `Row`, offset, length, size and `zipped`."""
    with zipfile.ZipFile(_Reader(handle, "zip")) as archive:
        starts = sorted(entry.header_offset for entry in archive.infolist())
        ends = dict(zip(starts, [*starts[1:], archive.start_dir]))
        csvs = 0
        for entry in archive.infolist():
            name, start, packed = entry.filename, entry.header_offset, entry.compress_size
            length = ends[start] - start
            if start < 0 or length < 30 + packed or len(ends) < len(starts):
                raise zipfile.BadZipFile(f"{name} lies outside the archive or overlaps the next member")
            if kind_of(name) not in MEMBERS:
                continue
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"{name} is encrypted, or neither stored nor deflated")
            csvs += kind_of(name) == "csv"
            if csvs > MAX_CSVS:
                raise zipfile.BadZipFile(f"more than {MAX_CSVS:,} CSVs")
            length = min(length, 30 + 2 * 0xFFFF + packed)  # header, name and extra field; not a gap after it
            lines = read_lines(archive.open(entry), entry.file_size) if kind_of(name) == "csv" else None
            yield (name, start, length, entry.file_size, (entry.compress_type, packed, entry.CRC)), lines


def _tar_members(handle: Any) -> Iterator[tuple[tuple, Iterator[str] | None]]:
    """Yields of each image and CSV in a tar its name and, as in `Row`, offset, length and size."""
    file: Any = _Reader(handle, "tar")
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep all
            is_ours = kind_of(member.name) in MEMBERS and not member.isdir()
            if member.size < 0 or (is_ours and (not member.isreg() or member.issparse())):
                raise tarfile.TarError(f"{member.name} has a negative size, or is a link, device, pipe or sparse file")
            if is_ours:
                handle.seek(member.offset_data)
                lines = read_lines(handle, member.size) if kind_of(member.name) == "csv" else None
                yield (member.name, member.offset_data, member.size, member.size), lines
        handle.seek(tar.offset)
        if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # `tarfile` stops at damage silently
            raise tarfile.TarError(f"damaged or cut off at byte {tar.offset}")


def read_lines(file: Any, size: int | None) -> Iterator[str]:
    """Yields the lines of the next `size` bytes of a file, or of all."""
    rest, number, read = b"", 0, 0
    size = MAX_CSV_BYTES + 1 if size is None else size
    while read < size and (block := file.read(min(size - read, MAX_LINE if read else 1 << 14))):  # most are not ours
        read += len(block)
        *lines, rest = (rest + block).split(b"\n")
        if read > MAX_CSV_BYTES or number + len(lines) > MAX_MEMBERS or len(rest) > MAX_LINE:
            bounds = f"{MAX_CSV_BYTES:,} bytes, {MAX_MEMBERS:,} lines, or {MAX_LINE:,} bytes in a line"
            raise csv.Error(f"more than {bounds}; split the source")
        for line in lines:
            yield line.decode("utf-8" if number else "utf-8-sig") + "\n"
            number += 1
    if rest:
        yield rest.decode("utf-8" if number else "utf-8-sig")


def read_csv(where: str, lines: Iterator[str], tables: dict, problems: dict[str, list[str]]) -> bool:
    """Reads a CSV, if it is a metadata CSV.

    Args:
        where: Its name, for messages.
        lines: From `read_lines`.
        tables: By CSV, its rows by file name: line, prompt, raw labels. Only the first one's rows are added.
        problems: Places by kind of problem; those of this CSV are added.

    Returns:
        True if it is a metadata CSV.
    """
    reader = csv.reader(lines, strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        given = {key: [column for column in header if column in names] for key, names in COLUMNS.items()}
        given["filename"] = [column for column in given["filename"] if column != "path"] or given["filename"]
        labels = [column for column in header if column in LABELS]
        missing = [key for key in COLUMNS if not given[key] and (key != "labels" or not labels)]
        missing += [label for label in LABELS if label not in labels and labels and not given["labels"]]
        if missing:
            problems[NO_CSV].append(f"{where} has no {', '.join(missing)}")
            return False
        tables[where] = {}
        if max(map(len, given.values())) > 1 or len(labels) > len(set(labels)) or (labels and given["labels"]):
            problems["doubled column; keep one for each meaning"].append(f"{where}: {', '.join(header)}")
        elif len(tables) == 1:  # no more than one is used
            columns = [*given["filename"], *given["prompt"], *(given["labels"] or LABELS)]
            _read_rows(where, reader, [header.index(column) for column in columns], len(header), tables, problems)
    except (csv.Error, UnicodeDecodeError) as error:
        kind = "unreadable CSV; it must be UTF-8 text, comma-separated, as many fields in each row as columns"
        line = reader.line_num + isinstance(error, UnicodeDecodeError)  # not counted yet
        problems[kind].append(f"{where} line {line}: {error}")
    return where in tables


def _read_rows(where: str, reader: Any, columns: list[int], width: int, tables: dict, problems: dict) -> None:
    """Reads the rows of a CSV; file name, prompt and labels are in `columns` of `width`."""
    rows = tables[where]
    for fields in reader:
        if not fields:
            continue  # a blank line
        text = "".join(fields)
        if len(fields) != width or "\0" in text:
            raise csv.Error(f"more or fewer fields than the {width} columns, or a NUL byte")
        if len(rows) == MAX_ROWS:
            raise csv.Error(f"more than {MAX_ROWS:,} rows; split the source")
        line = reader.line_num - text.count("\n")
        name, prompt, *cells = [fields[column] for column in columns]
        name, found = basename_of(name), {}
        if not name:
            found["empty file name; name the image"] = ""
        if not prompt.strip():
            found["empty prompt; write the text that generated the image"] = ""
        if name in rows:
            found["file name twice in the CSV; remove or rename one"] = f": {name}"
        rows[name] = line, prompt, ()
        try:
            rows[name] = line, prompt, _labels(*cells)
        except ValueError as error:
            found["bad labels; give each of the 14 once, as 1, 0, -1 or nothing"] = f": {error}"
        for kind, more in found.items():
            problems[kind].append(f"{where} line {line}{more}")
            if len(problems[kind]) >= MAX_PROBLEMS:
                problems["unread end of the CSV; correct the other problems first"].append(f"{where} after line {line}")
                return


@functools.lru_cache(maxsize=8192)  # most label cells of a release repeat
def _labels(*cell: str) -> tuple[int | None, ...]:
    """Reads the 14 raw labels from as many cells, or from one with a Python dict literal or JSON object."""
    text = cell[0] if len(cell) == 1 else ""
    if len(text) > MAX_LABELS:
        raise ValueError(f"more than {MAX_LABELS:,} characters")
    usual = USUAL_ITEM.findall(text[1:-1])
    values = {label: RAW_LABELS.get(value) for _, label, value in usual}
    if len(usual) == len(values) == len(LABELS) and text[0] + USUAL_ITEM.sub("", text[1:-1]) + text[-1] == "{}":
        return tuple([values[label] for label in LABELS])  # 7 times faster than the parser
    try:
        bare = re.sub(r"\b(nan|null)\b", "None", text, flags=re.IGNORECASE).strip()
        labels = dict(ast.literal_eval(bare).items()) if len(cell) == 1 else dict(zip(LABELS, cell))
    except (AttributeError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"{text[:40]!r} is not a dict of labels") from None
    raw = {name: str(value).strip().lower() for name, value in labels.items()}
    wrong = [f"{label!r} is missing" for label in LABELS if label not in raw]
    wrong += [f"{name!r} is not a label" for name in raw if name not in LABELS]
    wrong += [f"{name!r} is {labels[name]!r:.40}" for name in raw if raw[name] not in RAW_LABELS]
    wrong += ["a label is given twice"] * (bare.count(":") > len(raw))  # a dict keeps only one of two equal keys
    if wrong:
        raise ValueError(", ".join(wrong[:3]))
    return tuple(RAW_LABELS[raw[label]] for label in LABELS)


def _join(found: dict[str, list], tables: dict, versions: dict, problems: dict, on_mismatch: str) -> list[Row]:
    images: dict[str, Row] = {}
    for row in found["image"]:
        first = images.setdefault(row.filename, row)
        if first is not row:
            problems["file name twice among the images; remove or rename one"].append(f"{first.where} and {row.where}")
        if row.size == 0 or max(row.size or 0, (row.length or 0) - (1 << 20)) > MAX_IMAGE_BYTES:
            problems[f"{'image over 64 MiB unpacked' if row.size else 'empty image'}; get it again"].append(row.where)
    csv_file, rows = next(iter(tables.items())) if tables else ("", {})
    joined = []
    for name, row in images.items():
        if name in rows:
            _, prompt, labels = rows[name]
            joined.append(row._replace(prompt=prompt, labels=labels, versions=versions[row.path]))
    other_csvs = problems.pop(NO_CSV, ["no .csv file"])  # no problem beside the metadata CSV
    problems["several metadata CSVs; keep one"] += list(tables) if len(tables) > 1 else []
    if any(places and kind.startswith(NOT_READ) for kind, places in problems.items()):
        return joined
    if found["archive"] and not images:
        problems["archive without an image; check it"] = found["archive"]
    elif not images:
        problems["no archive or image; check the address"] = ["nothing that ends in .zip, .tar, .png, .jpg or .jpeg"]
    if not tables:
        problems[NO_CSV] = other_csvs
    elif images:
        lone_images = [image.where for name, image in images.items() if name not in rows]
        lone_rows = [f"{csv_file} line {rows[name][0]}: {name}" for name in rows if name not in images]
        if on_mismatch == "error" or not joined:
            problems['image without a row; add the row, or pass on_mismatch="skip"'] += lone_images
            problems['row without an image; add the image, or pass on_mismatch="skip"'] += lone_rows
        elif lone_images or lone_rows:
            lone = len(lone_images), len(lone_rows)
            logger.warning("left out %d images without a row, %d rows without an image", *lone)
    return joined


def _read_image(handle: Any, row: Row) -> bytes:
    handle.seek(row.offset)
    data = handle.read(MAX_IMAGE_BYTES + 1 if row.length is None else row.length)
    if row.zipped:
        method, packed, crc = row.zipped
        data = _unpack(data, method, packed)
        if not data or crc32(data) != crc:
            raise SourceError(f"{row.where}: CRC error, the archive is damaged; get it again")
    if row.size not in (None, len(data)):
        raise SourceError(f"{row.where}: {len(data)} bytes instead of the planned {row.size}; it changed, start again")
    check_image(data, row)
    return data


def check_image(data: bytes, row: Any) -> None:
    """Checks that an image is a whole PNG or JPEG file, as the suffix of its row's `filename` has it.

    Raises:
        SourceError: It is not; the message begins with the row's `where`.
    """
    named, other = ("PNG", "JPEG") if row.filename.lower().endswith(".png") else ("JPEG", "PNG")
    if data.startswith({"PNG": PNG, "JPEG": JPEG}[other]):
        raise SourceError(f"{row.where}: {other} file with the suffix of a {named}; rename it")
    try:
        width, height = dimensions(data)
    except ValueError:
        raise SourceError(f"{row.where}: not a whole {named} file; generate or copy it again") from None
    if named == "PNG" and not row.zipped and not _chunks_are_intact(data):
        raise SourceError(f"{row.where}: CRC error, the image is damaged; get it again")
    if not 0 < width * height <= MAX_PIXELS:
        raise SourceError(f"{row.where}: {width:,} x {height:,} pixels; make it one of 1 to {MAX_PIXELS:,} pixels")


def dimensions(image: bytes) -> tuple[int, int]:
    """Returns width and height of a PNG or JPEG file, as its header has them: pixels.

    Raises:
        ValueError: It is neither, or it is not whole.
    """
    if image.startswith(PNG + b"\0\0\0\rIHDR") and image[-8:-4] == b"IEND":
        return int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")
    if image.startswith(JPEG) and (size := _jpeg_dimensions(image)):
        return size
    raise ValueError("not a whole PNG or JPEG file")


def _jpeg_dimensions(jpeg: bytes) -> tuple[int, int] | None:
    """Walks from segment to segment, and over the pixels after a scan's header, to the end; None if that fails."""
    size, at, in_scan = None, 2, False
    for _ in range(MAX_SEGMENTS):
        marker = JPEG_MARKER.search(jpeg, at)
        if not marker or (not in_scan and jpeg[at : marker.start()].strip(b"\xff")):
            return None  # cut off, or other bytes between segments than fill bytes
        kind, at = jpeg[marker.end() - 1], marker.end()
        if kind == 0xD9:  # the end of the image; cameras append more
            return size
        length, is_frame = int.from_bytes(jpeg[at : at + 2], "big"), 0xC0 <= kind <= 0xCF and kind not in JPEG_TABLES
        if length < 2 or kind < 0xC0 or kind == 0xD8 or (is_frame and size):
            return None
        if is_frame:  # baseline, progressive, lossless …
            size = int.from_bytes(jpeg[at + 5 : at + 7], "big"), int.from_bytes(jpeg[at + 3 : at + 5], "big")
        at, in_scan = at + length, kind == 0xDA
    return None


def _unpack(member: bytes, method: int, packed: int) -> bytes:
    """Returns the content of a zip's member, or nothing, which is no image, where it is damaged."""
    try:
        start = 30 + sum(struct.unpack_from("<HH", member, 26))  # after header, name, extra field
        data = member[start : start + packed]
        if len(data) < packed:  # it overlaps the next member
            return b""
        if method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_IMAGE_BYTES)
        return data
    except (struct.error, zlib.error):
        return b""


def _chunks_are_intact(png: bytes) -> bool:
    """Compares each chunk with its CRC, where no archive has one of the whole file; the last must be the end."""
    view, at, kind = memoryview(png), 8, b""
    while at + 12 <= len(png) and kind != b"IEND":
        kind, end = png[at + 4 : at + 8], at + 8 + int.from_bytes(view[at : at + 4], "big")
        if crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        at = end + 4
    return at == len(png) and kind == b"IEND"
