"""How every Parquet file is written: pages with an index and checksums, content-defined chunks, keys in the footer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CHUNKING = "use_content_defined_chunking"
WRITER_OPTIONS: dict[str, Any] = {
    "write_page_index": True,  # the dataset viewer reads pages, not row groups
    "write_page_checksum": True,
    # Xet storage transfers only new chunks; these sizes are those of `datasets`, and pyarrow's own.
    CHUNKING: {"min_chunk_size": 256 << 10, "max_chunk_size": 1 << 20, "norm_level": 0},
}


@contextlib.contextmanager
def parquet_writer(file: Any, schema: pa.Schema, options: dict[str, Any]) -> Iterator[pq.ParquetWriter]:
    """Opens a file for tables; closes the writer after an error too, or else its destructor would.

    pyarrow writes no key that tells of the chunks. The footer gets two: that of `datasets`, and the one that the source
    of the Hub's viewer looks for, whatever its value, before it calls a repository `optimized-parquet`.

    Args:
        file: The file, open for writing.
        schema: Of the tables.
        options: Of pyarrow's writer; they take precedence over `WRITER_OPTIONS`.
    """
    options = {**WRITER_OPTIONS, **options}
    writer = pq.ParquetWriter(file, schema, **options)
    try:
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(options[CHUNKING]), CHUNKING: "true"})
        yield writer
    except BaseException:
        with contextlib.suppress(Exception):
            writer.close()
        raise
    writer.close()
