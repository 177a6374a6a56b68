"""Steps of `provenance.json` as sentences. Fields and steps of any name are shown, known ones in better words."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pipeline.errors import one_line
from pipeline.provenance import PROGRAMS, Step

TITLES = {"generate": "Generation", "pack": "Packing", "filter": "Filtering"}
WORDS = {  # of fields whose names are no words
    "lora": "LoRA",
    "sha256": "SHA-256",
    "weights_sha256": "SHA-256 of the weights",
    "module_sha256": "SHA-256 of the module",
    "truncated_prompts": "prompts that were too long for the model and were cut off",
    "left_out": "images left out, without a row",
    "unparsed": "images whose answer names no quality",
    "sources": "derived from",
    "total": "images judged",
    "kept": "images kept",
}
COUNTS = {"images", "rows", "total", "kept", "left_out", "truncated_prompts"}  # shown with thousands separators
# Of any step: shown by other means than as `name: value`.
IN_SENTENCES = {"step", "program", "version", "about", "meta_prompt", "runs", "limits", "personal_information"}

EMPTY: tuple[Any, ...] = (None, "", [], {})  # values that state nothing
BEFORE_QUOTE = "The meta-prompt:"


class StepText(NamedTuple):
    """A step in plain text: title, sentences, a quotation below them, and sentences below that. All may be empty."""

    title: str
    lead: str
    quote: str
    more: str

    @property
    def short(self) -> str:
        """The title and the sentences above the quotation."""
        return " ".join(filter(None, [f"{self.title}.", self.lead.removesuffix(BEFORE_QUOTE).strip()]))

    def __str__(self) -> str:
        """Returns the text in one line."""
        quote = f'"{self.quote}"' if self.quote else ""
        return " ".join(filter(None, [f"{self.title}.", self.lead, quote, self.more]))


def describe_step(step: Step) -> StepText:
    """Returns the text of a step.

    Example:
        >>> print(describe_step({"step": "scan", "field_strength": 3, "by": ["A", "B"]}))
        Scan. Field strength: 3; by: A, B.
        >>> print(describe_step({"step": "filter", "model": "J", "meta_prompt": "Good?", "drop": ["Low"], "kept": 12}))
        Filtering. J judged each image. The meta-prompt: "Good?" Images judged 'Low' were removed. Images kept: 12.
    """
    stated = {key: value for key, value in step.items() if value not in EMPTY}
    title = TITLES.get(step["step"]) or _capital(_words(step["step"]))
    quote = one_line(_text(stated.get("meta_prompt", "")))
    lead, shown = _lead(stated)
    about = _sentence(_text(stated.get("about", "")))
    above = [_sentence(lead), about, BEFORE_QUOTE if quote else ""]
    others = {key: value for key, value in stated.items() if key not in IN_SENTENCES | shown}
    below = [_dropped(stated["drop"])] if "drop" in shown else []
    below += [_sentence(_runs(stated["runs"]))] if "runs" in stated else []
    below += [_sentence(_capital("; ".join([*_named_values(others), *_programs(stated)])))]
    return StepText(title, " ".join(filter(None, above)), quote, " ".join(filter(None, below)))


def agent_of(step: Step) -> str:
    """Returns what did a step: the model or judge, else the program; empty where neither is stated."""
    return _text(step["model"]) if step.get("model") else _program(step)


def texts_of(steps: tuple[Step, ...], key: str) -> list[str]:
    """Returns the texts of a field, one or a list, of all steps that have it."""
    values = [step[key] for step in steps if step.get(key)]
    return [_sentence(_text(one)) for value in values for one in (value if isinstance(value, list) else [value])]


def span_of(step: Step) -> tuple[str, str]:
    """Returns when the runs of a step began and ended, as it states it; empty where it does not."""
    runs = step.get("runs")
    runs = [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
    times = [
        sorted(run[key] for run in runs if isinstance(run.get(key), str) and run[key]) for key in ("started", "ended")
    ]
    return (times[0][0] if times[0] else "", times[1][-1] if times[1] else "")


def _lead(step: Step) -> tuple[str, set[str]]:
    """Returns the first sentence of a step, and the fields that it and the sentence about what was dropped show."""
    model = _text(step.get("model", ""))
    model += f" ({_text(step['model_url'])})" if model and "model_url" in step else ""
    of_model = {"model", "model_url"} if model else set()
    name = step.get("step", "")
    if name == "generate":
        return f"{model} generated the images" if model else "", of_model
    if name == "filter":
        return f"{model} judged each image" if model else "", of_model | ({"drop"} & {*step})
    if name == "pack" and "size" in step:
        fit = f" (fit: {_text(step['fit'])})" if "fit" in step else ""
        return f"The images were resized to {_size(step['size'])}{fit} and packed into archives", {"size", "fit"}
    if name == "pack" and step.get("program") == PROGRAMS["pack"]:
        return "The image files were packed into archives, byte for byte", set()
    return model, of_model


def _dropped(qualities: Any) -> str:
    names = [f"'{_text(one)}'" for one in (qualities if isinstance(qualities, list) else [qualities])]
    return f"Images judged {' or '.join(names)} were removed."


def _named_values(fields: dict[str, Any]) -> list[str]:
    """Returns fields as `name: value`."""
    shows = {"size": _size, "sources": _sources}
    texts = {key: shows[key](value) if key in shows else _text(value, key) for key, value in fields.items()}
    return [f"{_words(key)}: {text}" for key, text in texts.items()]


def _programs(step: Step) -> list[str]:
    return [f"program: {program}"] if (program := _program(step)) else []


def _program(step: Step) -> str:
    return " ".join(_text(step[key]) for key in ("program", "version") if step.get(key) not in EMPTY)


def _sources(sources: Any) -> str:
    """Returns what data come from, a list of objects with `name` and `url`."""
    texts = []
    for source in sources if isinstance(sources, list) else [sources]:
        is_usual = isinstance(source, dict) and {*source} == {"name", "url"}
        texts.append(f"{_text(source['name'])} ({_text(source['url'])})" if is_usual else _text(source))
    return ", ".join(texts)


def _runs(runs: Any) -> str:
    """Returns number, time span, hardware and versions of runs."""
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        return f"Runs: {_text(runs)}"
    started, ended = span_of({"runs": runs})
    texts = [f"runs: {len(runs)}"] if len(runs) > 1 else []
    texts += [f"started: {started}"] * bool(started) + [f"ended: {ended}"] * bool(ended)
    values: dict[str, list[str]] = {}
    for run in runs:
        for key, value in run.items():
            if value not in EMPTY and not (key in ("started", "ended") and isinstance(value, str)):
                values.setdefault(key, []).append(_text(value, key))
    for key, all_values in values.items():
        text = " + ".join(all_values) if key in COUNTS else " or ".join(dict.fromkeys(all_values))
        texts.append(f"{_words(key)}: {text}")
    return _capital("; ".join(texts))


def _text(value: Any, key: str = "") -> str:
    """Returns a JSON value as text."""
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_nested(inner, name)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_nested(inner, key) for inner in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if key in COUNTS and isinstance(value, int) else str(value)


def _nested(value: Any, key: str) -> str:
    return f"({_text(value, key)})" if isinstance(value, (dict, list)) else _text(value, key)


def _size(size: Any) -> str:
    """Returns a width and height, or one number for both, as text."""
    sides = size if isinstance(size, list) and len(size) == 2 else [size, size]
    is_size = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    return f"{sides[0]}x{sides[1]} pixels" if is_size else _text(size)


def _words(key: str) -> str:
    return WORDS.get(key) or key.replace("_", " ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    text = one_line(text)
    return f"{text}." if re.search(r"[^.!?:]$", text) else text
