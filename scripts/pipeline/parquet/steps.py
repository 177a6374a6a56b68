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
    "total": "images judged",
    "kept": "images kept",
}
COUNTS = {"images", "rows", "total", "kept", "left_out", "truncated_prompts"}  # shown with thousands separators
SHOWN_ELSEWHERE = {"step", "program", "version", "model", "model_url", "about", "meta_prompt", "drop", "runs"}
SHOWN_ELSEWHERE |= {"sources", "limits", "personal_information"}  # shown by other means than as `name: value`

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
    name = step["step"]
    title = TITLES.get(name) or _capital(_words(name))
    meta_prompt = step.get("meta_prompt")
    quote = one_line(_text(meta_prompt)) if meta_prompt else ""
    about = _sentence(_text(step.get("about") or ""))
    lead = " ".join(filter(None, [_sentence(_lead(step)), about, BEFORE_QUOTE if quote else ""]))
    dropped = step.get("drop")
    parts = []
    if dropped:
        names = [f"'{_text(one)}'" for one in (dropped if isinstance(dropped, list) else [dropped])]
        parts.append(f"Images judged {' or '.join(names)} were removed.")
    parts += [_sentence(_runs(step["runs"]))] if step.get("runs") else []
    return StepText(title, lead, quote, " ".join([*parts, _details(step)]).strip())


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


def _lead(step: Step) -> str:
    models, size = _models(step), step.get("size")
    if step["step"] == "generate":
        return f"{models} generated the images" if models else ""
    if step["step"] == "filter":
        return f"{models} judged each image" if models else ""
    if step["step"] == "pack" and size:
        fit = f" ({_text(step['fit'])})" if step.get("fit") else ""
        return f"The images were resized to {_size(size)}{fit} and packed into archives"
    if step["step"] == "pack" and step.get("program") == PROGRAMS["pack"]:
        return "The image files were packed into archives, byte for byte"
    return models


def _models(step: Step) -> str:
    model, address = step.get("model"), step.get("model_url")
    return f"{_text(model)}{f' ({_text(address)})' if address else ''}" if model else ""


def _program(step: Step) -> str:
    return " ".join(_text(step[key]) for key in ("program", "version") if step.get(key))


def _details(step: Step) -> str:
    """Returns the fields that no sentence holds, as `name: value`."""
    elsewhere = SHOWN_ELSEWHERE | ({"size", "fit"} if step["step"] == "pack" else set())
    shown = {key: value for key, value in step.items() if key not in elsewhere and value not in (None, "", [], {})}
    texts = [f"{_words(key)}: {_size(value) if key == 'size' else _text(value, key)}" for key, value in shown.items()]
    texts += [f"program: {_program(step)}"] if _program(step) else []
    return _sentence(_capital("; ".join(texts)))


def _runs(runs: Any) -> str:
    """Returns number, time span, hardware and versions of runs."""
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        return f"runs: {_text(runs)}"
    started, ended = span_of({"runs": runs})
    texts = [f"runs: {len(runs)}"] if len(runs) > 1 else []
    texts += [f"started: {started}"] * bool(started) + [f"ended: {ended}"] * bool(ended)
    for key in dict.fromkeys(key for run in runs for key in run if key not in ("started", "ended")):
        values = dict.fromkeys(_text(run[key]) for run in runs if run.get(key))
        texts += [f"{_words(key)}: {' or '.join(values)}"] if values else []
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
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return f"{size[0]}x{size[1]} pixels"
    return f"{size}x{size} pixels" if isinstance(size, int) else _text(size)


def _words(key: str) -> str:
    return WORDS.get(key) or key.replace("_", " ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    text = one_line(text)
    return f"{text}." if re.search(r"[^.!?:]$", text) else text
