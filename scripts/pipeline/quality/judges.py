"""Ways to ask a vision-language model about images, behind one interface."""

from __future__ import annotations

import base64
import importlib
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import PIL.Image

from pipeline.errors import StepError, one_line
from pipeline.retry import TRANSIENT_STATUS, backoff, with_retry
from pipeline.rows import decode
from synthchex_75k import SourceError

MAX_TOKENS = 64  # of an answer; the meta-prompt asks for two words
MAX_TRIES = 7  # of a request
FIRST_DELAY = 0.5  # seconds before the second try
TIMEOUT = 120  # seconds for an answer
RETRIED_STATUS = TRANSIENT_STATUS | {409}


class JudgeError(Exception):
    """A question got no answer; `image_specific` if a question about another image may get one."""

    def __init__(self, message: str, image_specific: bool) -> None:
        super().__init__(one_line(message))
        self.image_specific = image_specific


class Judge(Protocol):
    """A model that answers questions about images.

    `ask` is called with at most `batch_size` images, from `concurrency` threads in parallel. It returns an answer for
    each image, greedily decoded. It raises JudgeError, or StepError where no image will get an answer.
    """

    batch_size: int
    concurrency: int

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """Asks about images, each a PNG file, with a question each."""


class ServerJudge:
    """A model behind an OpenAI-compatible server, such as vLLM, SGLang, llama.cpp or Ollama.

    The key is that in OPENAI_API_KEY, if the server wants one. Requests are retried after 408, 409, 429 and 5xx,
    dropped connections and timeouts: `MAX_TRIES` tries in all, with exponential back-off or after `Retry-After`.

    Args:
        model: Name of the model, for the server.
        base_url: Address of the server's API, such as `http://localhost:8000/v1`.
        concurrency: Parallel requests.
        max_tokens: Upper bound of an answer's length: tokens.
    """

    batch_size = 1

    def __init__(self, model: str, base_url: str, concurrency: int, max_tokens: int = MAX_TOKENS) -> None:
        self.model, self.base_url, self.concurrency = model, base_url, concurrency
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._openai = _import("openai", "openai")
        self._client = self._openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=TIMEOUT)
        self._limit = {"max_tokens": max_tokens}
        self._has_answered = False

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """See `Judge`."""
        openai = self._openai
        url = f"data:image/png;base64,{base64.b64encode(images[0]).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": questions[0]}]
        try:
            completion = with_retry(lambda: self._complete([{"role": "user", "content": content}]), self._delay_after)
            answer = completion.choices[0].message.content or ""
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise StepError(f"{self.base_url}: {_text(error)}") from error
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise JudgeError(_text(error), image_specific=True) from error
        except openai.APIStatusError as error:
            raise JudgeError(_text(error), image_specific=error.status_code == 413) from error
        except openai.APIConnectionError as error:
            raise JudgeError(f"{self.base_url}: {_text(error)}", image_specific=False) from error
        except (openai.APIError, ValueError, AttributeError, IndexError, TypeError) as error:
            # The client's errors for a body that is no chat completion.
            message = f"{self.base_url} returned no chat completion; should it end in /v1? {error!r}"
            raise JudgeError(message[:300], image_specific=False) from error
        self._has_answered = True
        return [answer]

    def _complete(self, messages: list[dict[str, Any]]) -> Any:
        create = self._client.chat.completions.create
        try:
            return create(model=self.model, messages=messages, temperature=0, **self._limit)
        except self._openai.BadRequestError as error:
            if "max_tokens" not in self._limit or "max_completion_tokens" not in str(error):
                raise
            self._limit = {"max_completion_tokens": self._limit["max_tokens"]}
            return create(model=self.model, messages=messages, temperature=0, **self._limit)

    def _delay_after(self, error: Exception, tries: int) -> float | None:
        if not self._has_answered and _is_unreachable(error):
            raise StepError(f"{self.base_url}: no server answers there; start it, or correct --base-url") from error
        response = getattr(error, "response", None)
        is_transient = (
            error.status_code in RETRIED_STATUS or error.status_code >= 500
            if isinstance(error, self._openai.APIStatusError)
            else isinstance(error, self._openai.APIConnectionError)
        )
        if not is_transient or tries == MAX_TRIES - 1:
            return None
        return backoff(response.headers if response is not None else {}, tries, FIRST_DELAY)


class TransformersJudge:
    """An image-text-to-text model of `transformers` in this process, on a GPU if there is one.

    Args:
        model: Folder, or name on the Hub.
        batch_size: Images at once.
        max_tokens: Upper bound of an answer's length: tokens.
    """

    concurrency = 1

    def __init__(self, model: str, batch_size: int, max_tokens: int = MAX_TOKENS) -> None:
        self.batch_size, self.max_tokens = batch_size, max_tokens
        transformers = _import("transformers", "transformers")
        torch = _import("torch", "transformers")
        device = 0 if torch.cuda.is_available() else "cpu"
        self._pipeline = transformers.pipeline("image-text-to-text", model=model, device=device, dtype="auto")
        if not getattr(self._pipeline.processor, "chat_template", None):
            raise StepError(f"{model} has no chat template, so it cannot be asked; see --callable")
        self._pipeline.processor.tokenizer.padding_side = "left"  # where batches are generated from

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """See `Judge`."""
        chats = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
            for image, question in zip(map(decode_rgb, images), questions)
        ]
        options = {"do_sample": False, "max_new_tokens": self.max_tokens}
        try:
            answers = self._pipeline(
                text=chats, batch_size=self.batch_size, return_full_text=False, generate_kwargs=options
            )
        except Exception as error:  # any model may raise anything
            raise _model_error(error) from error
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
        except Exception as error:  # any model may raise anything
            raise _model_error(error) from error


def decode_rgb(image: bytes) -> PIL.Image.Image:
    """Decodes a PNG file.

    Raises:
        JudgeError: It cannot be decoded.
    """
    try:
        return decode(image, "the image").convert("RGB")
    except SourceError as error:
        raise JudgeError(str(error), image_specific=True) from error


def _model_error(error: Exception) -> JudgeError:
    """Describes an error that a model raised, with its place; another image may get an answer."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return JudgeError(f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})", image_specific=True)


def _is_unreachable(error: BaseException | None) -> bool:
    """True if a connection was refused, or the host has no address."""
    while error and not isinstance(error, (ConnectionRefusedError, socket.gaierror)):
        error = error.__cause__ or error.__context__
    return error is not None


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StepError(f"this needs {module}: pip install {module}, or the extra [{extra}] ({error})") from error


def _text(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:300]
