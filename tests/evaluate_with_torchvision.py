"""`evaluate_images.py` where torchvision needs `import_torchvision`."""

import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path[:0] = [str(SCRIPTS)]

import import_torchvision  # noqa: E402, F401 - before what needs it
from evaluate_images import main  # noqa: E402
from pipeline.cli import start  # noqa: E402

if __name__ == "__main__":
    start(main)
