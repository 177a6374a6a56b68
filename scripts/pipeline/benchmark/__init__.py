"""Parts of `benchmark.py`: a module for each mode, sources, measuring, and programs that run in other environments.

    measure      commands: seconds, memory, in turns; environments
    sources      sources to measure with, in several forms
    conversion   mode: the converter beside other methods; starts `peers`
    reading      its second half: how fast each form is read; starts `peers`
    metrics      mode `--evaluation`; starts `evaluation`
    training     mode `--training`; starts `loaders`

A mode is one function that measures in an empty folder and yields lines of Markdown.
"""
