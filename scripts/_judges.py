"""Ways to ask a vision-language model about images, behind one interface."""

from __future__ import annotations

import base64
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import PIL.Image
from _steps import StepError, decode, one_line

from synthchex_75k import SourceError

MAX_NEW_TOKENS = 64  # of an answer; the meta-prompt asks for two words
RETRIES = 6
TIMEOUT = 120  # seconds for an answer
CLIENT_WAITS = 60  # seconds of `Retry-After` up to which the `openai` client waits by itself


class JudgeError(Exception):
    """A question that got no answer; `is_of_image` if another image may get one."""

    def __init__(self, message: str, is_of_image: bool) -> None:
        super().__init__(one_line(message))
        self.is_of_image = is_of_image


class Judge(Protocol):
    """A model that answers questions about images.

    `ask` is called with at most `batch_size` images, by `concurrency` threads at once. It returns an answer for each
    image, greedily decoded, and raises JudgeError, or StepError where no image will get an answer.
    """

    batch_size: int
    concurrency: int

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """Asks about images, each a PNG file, with a question each."""


class ServerJudge:
    """A model behind an OpenAI-compatible server, such as vLLM, SGLang, llama.cpp or Ollama.

    The key is that in OPENAI_API_KEY, if the server wants one. Requests that fail with 408, 409, 429 or 5xx, or are cut
    or late, are made again by the `openai` client, after what `Retry-After` says or ever longer.

    Args:
        model: Name of the model, for the server.
        base_url: Address of the server's API, such as `http://localhost:8000/v1`.
        concurrency: Requests in flight.
    """

    batch_size = 1

    def __init__(self, model: str, base_url: str, concurrency: int) -> None:
        self.model, self.base_url, self.concurrency = model, base_url, concurrency
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._openai = _import("openai", "openai")
        self._client = self._openai.OpenAI(base_url=base_url, api_key=key, max_retries=RETRIES, timeout=TIMEOUT)

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """See `Judge`."""
        openai = self._openai
        url = f"data:image/png;base64,{base64.b64encode(images[0]).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": questions[0]}]
        try:
            return [self._complete([{"role": "user", "content": content}]).choices[0].message.content or ""]
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise StepError(f"{self.base_url}: {_say(error)}") from error
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise JudgeError(_say(error), is_of_image=True) from error
        except openai.APIStatusError as error:
            raise JudgeError(_say(error), is_of_image=error.status_code == 413) from error
        except openai.APIConnectionError as error:
            raise JudgeError(f"{self.base_url}: {_say(error)}", is_of_image=False) from error
        except (openai.APIError, ValueError, AttributeError, IndexError, TypeError) as error:
            # What the client makes of a body that is no chat completion.
            message = f"{self.base_url} gives no chat completion; should it end in /v1? {error!r}"
            raise JudgeError(message[:300], is_of_image=False) from error

    def _complete(self, messages: list[dict[str, Any]]) -> Any:
        while True:
            try:
                return self._client.chat.completions.create(
                    model=self.model, messages=messages, temperature=0, max_tokens=MAX_NEW_TOKENS
                )
            except self._openai.APIStatusError as error:
                said = error.response.headers.get("Retry-After", "")
                if error.status_code not in (429, 503) or not said.isdigit() or int(said) <= CLIENT_WAITS:
                    raise
                print(f"{self.base_url}: {error.status_code}, again in {said} s", file=sys.stderr)
                time.sleep(int(said))


class TransformersJudge:
    """An image-text-to-text model of `transformers` in this process, on a GPU if there is one.

    Args:
        model: Folder, or name on the Hub.
        batch_size: Images at once.
    """

    concurrency = 1

    def __init__(self, model: str, batch_size: int) -> None:
        self.batch_size = batch_size
        transformers = _import("transformers", "transformers")
        torch = _import("torch", "transformers")
        device = 0 if torch.cuda.is_available() else "cpu"
        self._pipeline = transformers.pipeline("image-text-to-text", model=model, device=device, dtype="auto")
        if not getattr(self._pipeline.processor, "chat_template", None):
            raise StepError(f"{model} has no chat template, so that it cannot be asked; see --callable")
        self._pipeline.processor.tokenizer.padding_side = "left"  # where batches are generated from

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """See `Judge`."""
        chats = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
            for image, question in zip(map(decode_rgb, images), questions)
        ]
        options = {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS}
        try:
            answers = self._pipeline(
                text=chats, batch_size=self.batch_size, return_full_text=False, generate_kwargs=options
            )
        except Exception as error:  # of any model
            raise _of_model(error) from error
        return [(answer[0] if isinstance(answer, list) else answer)["generated_text"] for answer in answers]


class CallableJudge:
    """A model with code of its own, as a function of decoded images and questions that returns the answers.

    Args:
        name: `MODULE:FUNCTION`; the module is looked for in the working directory too.
        batch_size: Images at once.
    """

    concurrency = 1

    def __init__(self, name: str, batch_size: int) -> None:
        self.batch_size = batch_size
        module, _, function = name.partition(":")
        sys.path.insert(0, os.getcwd())
        try:
            self._function: Callable[[list[PIL.Image.Image], list[str]], list[str]] = getattr(
                importlib.import_module(module), function
            )
        except (ImportError, AttributeError, ValueError) as error:
            raise StepError(f"--callable {name}: {error}; name a function as MODULE:FUNCTION") from error

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """See `Judge`."""
        decoded = [*map(decode_rgb, images)]
        try:
            return [*self._function(decoded, questions)]
        except Exception as error:  # of any model
            raise _of_model(error) from error


def decode_rgb(image: bytes) -> PIL.Image.Image:
    """Decodes a PNG file.

    Raises:
        JudgeError: It cannot be decoded.
    """
    try:
        return decode(image, "the image").convert("RGB")
    except SourceError as error:
        raise JudgeError(str(error), is_of_image=True) from error


def _of_model(error: Exception) -> JudgeError:
    """Says what a model has raised, and where; another image may get an answer."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return JudgeError(f"{type(error).__name__}: {error} ({at.filename}:{at.lineno})", is_of_image=True)


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StepError(f"this takes {module}: pip install {module}, or the extra [{extra}] ({error})") from error


def _say(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:300]
