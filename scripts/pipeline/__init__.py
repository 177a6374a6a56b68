"""What the programs in `scripts/` are made of.

The ground floor, modules that every step may use:

    cli            arguments, exit codes, signals
    errors         StepError, and short listings for messages
    source_json    small JSON files of a SOURCE: bounded, checked
    provenance     provenance.json: how a SOURCE was made
    dataset_json   dataset.json: name, authors, license and citation of a dataset
    facts          what is known of a SOURCE; SynthCheX-75K's facts; meaning of each label
    rows           plan and read the rows of a SOURCE or PARQUET REPO
    columns        further columns of its metadata, such as patientID
    parquet_source names of the files of a PARQUET REPO; plan and read its rows
    parquet_pages  single values of a Parquet file, by its page index
    shards         cut rows into files; write only the files that are missing or out of date
    folder         an output folder and its manifest of fingerprints and checksums
    source_writer  rows to metadata.csv and images-*.zip
    files          atomic writes, fsync, SHA-256
    lock           locks: one run at a time writes to a folder or file
    jobs           worker processes
    progress       progress bars and log lines
    engine         a model over items: in this process, or in workers of Ray
    machine        hardware and versions that a model runs on; errors for lack of memory
    checkpoint     weights: a folder, a file or a name on the Hub, pinned
    imports        optional packages, functions named MODULE:FUNCTION, and models without their own code
    retry          retries with back-off that honour Retry-After
    hub            requests to the Hugging Face Hub
    page           self-contained HTML pages
    table          tables as CSV and as plain text

and one package for each step:

    generate       prompts to images, with a text-to-image model
    pack           a folder of images and a CSV to a SOURCE
    parquet        SOURCE to a Parquet dataset repository: convert, verify, card, croissant.json, publish
    quality        judge each image with a vision-language model, report and apply the answers
    evaluate       features of images, and metrics of synthetic images against real ones from them
    browse         a page that shows the images of any source, with filters
    benchmark      the methods that `benchmark.py` compares

A package of a step imports the ground floor and never another step; the ground floor imports no step.
`tests/test_structure.py` holds this.
"""

import sys
from pathlib import Path

# In a clone in which nothing is installed, `synthchex_75k` lies two folders up.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

try:
    import PIL  # noqa: F401
    import pyarrow  # noqa: F401

    import synthchex_75k  # noqa: F401
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: this program needs the Python package {error.name}: "
        "pip install datasets huggingface_hub pillow pyarrow, or run it with `uv run`"
    ) from None
except KeyboardInterrupt:  # the imports take most of a second
    print("\ninterrupted", file=sys.stderr)
    raise SystemExit(130) from None
