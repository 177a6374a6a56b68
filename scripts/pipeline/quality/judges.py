"""Ways to ask a vision-language model about images, behind one interface."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import PIL.Image

from pipeline.errors import StepError, describe_error, one_line
from pipeline.imports import check_installed, find_module, import_function, import_optional, loading
from pipeline.quality.server_client import ResponseError, make_client
from pipeline.retry import TRANSIENT_STATUS, backoff, with_retry
from pipeline.rows import decode, to_rgb
from synthchex_75k import JPEG, SourceError

MAX_TOKENS = 64  # of an answer; the meta-prompt asks for two words
MAX_TRIES = 7  # of a request
FIRST_DELAY = 0.5  # seconds before the second try
RETRIED_STATUS = TRANSIENT_STATUS | {409}
FATAL_STATUS = {401, 403, 404}  # key, permission, address or model: the same for every image
IMAGE_STATUS = {400, 413, 422}  # the server rejects an image, and may accept another


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
        """Asks about images, each a PNG or JPEG file, with a question each."""


class JudgeOptions(NamedTuple):
    """Which judge to make: a server's if there is a `base_url`, a callable if there is a `function`, else a model.

    Attributes:
        model: Name of the model, for the server or the Hub, or its folder.
        base_url: Address of an OpenAI-compatible server.
        function: `MODULE:FUNCTION`.
        concurrency: Parallel requests to a server.
        batch_size: Images at once, without a server.
        max_tokens: Upper bound of an answer's length, not with `function`: tokens.
    """

    model: str
    base_url: str | None
    function: str | None
    concurrency: int
    batch_size: int
    max_tokens: int

    @property
    def images_at_once(self) -> int:
        """How many images the judge is asked about at once."""
        return self.concurrency if self.base_url else self.batch_size

    def check_installed(self) -> None:
        """Checks that the judge's modules are installed, without loading them.

        Raises:
            StepError: One is not.
        """
        if self.function:
            find_module(self.function)
            return
        for package in ["openai"] if self.base_url else ["torch", "transformers"]:
            check_installed(package)

    def make(self) -> Judge:
        """Makes the judge.

        Raises:
            StepError: A package is missing, or the model cannot be loaded.
        """
        if self.base_url:
            return ServerJudge(self.model, self.base_url, self.concurrency, self.max_tokens)
        if self.function:
            return CallableJudge(self.function, self.batch_size)
        return TransformersJudge(self.model, self.batch_size, self.max_tokens)


class ServerJudge:
    """A model behind an OpenAI-compatible server, such as vLLM, SGLang, llama.cpp or Ollama.

    The key is that in OPENAI_API_KEY, if the server wants one; see `server_client`. Requests are retried after 408,
    409, 429 and 5xx, dropped connections and timeouts: `MAX_TRIES` tries in all, with exponential back-off or after
    `Retry-After`.

    Until the server has answered, one question is asked at a time: a server that cannot be reached is an error at once,
    and the name of the bound of an answer's length, which depends on the server, is found out once.

    Args:
        model: Name of the model, for the server.
        base_url: Address of the server's API, such as `http://localhost:8000/v1`.
        concurrency: Parallel requests.
        max_tokens: Upper bound of an answer's length: tokens.
    """

    batch_size = 1

    def __init__(self, model: str, base_url: str, concurrency: int, max_tokens: int = MAX_TOKENS) -> None:
        openai = self._openai = import_optional("openai")
        self.model, self.base_url, self.concurrency, self.max_tokens = model, base_url, concurrency, max_tokens
        self._client = make_client(openai, base_url)
        self._bound = "max_tokens"
        self._has_answered = False
        self._fatal: StepError | None = None
        self._first_question = threading.Lock()

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """See `Judge`."""
        kind = "jpeg" if images[0].startswith(JPEG) else "png"
        url = f"data:image/{kind};base64,{base64.b64encode(images[0]).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": questions[0]}]
        messages = [{"role": "user", "content": content}]
        with self._first_question:
            if self._fatal:
                raise self._fatal
            if not self._has_answered:
                return [self._answer(messages)]
        return [self._answer(messages)]

    def _answer(self, messages: list[dict[str, Any]]) -> str:
        openai = self._openai
        try:
            completion = with_retry(lambda: self._complete(messages), self._delay_after)
            answer = completion.choices[0].message.content or ""
            if not isinstance(answer, str):
                raise TypeError(f"the answer is no text: {answer!r}")
        except openai.APIConnectionError as error:
            if not self._has_answered:
                cause = one_line(error.__cause__ or error)
                raise self._end(f"no answer ({cause}); start the server, or correct --base-url") from error
            raise JudgeError(f"{self.base_url}: {describe_error(error)}", image_specific=False) from error
        except openai.APIStatusError as error:
            if error.status_code in FATAL_STATUS:
                raise self._end(describe_error(error)) from error
            raise JudgeError(describe_error(error), image_specific=error.status_code in IMAGE_STATUS) from error
        except ResponseError as error:
            raise JudgeError(f"{self.base_url}: {error}", image_specific=False) from error
        except (openai.APIError, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
            # The client's errors for a body that is no chat completion.
            message = f"{self.base_url} returned no chat completion; should it end in /v1? {error!r}"
            raise JudgeError(message[:300], image_specific=False) from error
        return answer

    def _end(self, message: str) -> StepError:
        """Returns the error of this question and of all that follow."""
        self._fatal = StepError(f"{self.base_url}: {message}")
        return self._fatal

    def _complete(self, messages: list[dict[str, Any]]) -> Any:
        """Makes a request, and another one if the server wants `max_completion_tokens`, from then on."""
        bound = self._bound
        try:
            return self._request(messages, bound)
        except self._openai.BadRequestError as error:
            wanted = "max_completion_tokens"
            if bound == wanted or wanted not in str(error):
                raise
            self._bound = wanted
            return self._request(messages, wanted)

    def _request(self, messages: list[dict[str, Any]], bound: str) -> Any:
        create = self._client.chat.completions.create
        try:
            completion = create(model=self.model, messages=messages, temperature=0, **{bound: self.max_tokens})
        except (self._openai.APIStatusError, ResponseError):
            self._has_answered = True
            raise
        except self._openai.APIConnectionError as error:
            if isinstance(error.__cause__, ResponseError):  # in some versions of the client
                self._has_answered = True
                raise error.__cause__ from None
            raise
        self._has_answered = True
        return completion

    def _delay_after(self, error: Exception, tries: int) -> float | None:
        """Returns the delay before the next try, as `with_retry` wants it."""
        headers = {}
        if isinstance(error, self._openai.APIStatusError):
            is_transient = error.status_code in RETRIED_STATUS or error.status_code >= 500
            headers = error.response.headers
        else:
            never_reached = not self._has_answered and _is_unreachable(error)
            is_transient = isinstance(error, self._openai.APIConnectionError) and not never_reached
        return backoff(headers, tries, FIRST_DELAY) if is_transient and tries + 1 < MAX_TRIES else None


class TransformersJudge:
    """An image-text-to-text model of `transformers` in this process, on a GPU if there is one.

    Args:
        model: Folder, or name on the Hub.
        batch_size: Images at once.
        max_tokens: Upper bound of an answer's length: tokens.

    Raises:
        StepError: The model cannot be loaded, or has no chat template.
    """

    concurrency = 1

    def __init__(self, model: str, batch_size: int, max_tokens: int = MAX_TOKENS) -> None:
        self.batch_size, self.max_tokens = batch_size, max_tokens
        torch, transformers = import_optional("torch"), import_optional("transformers")
        device = 0 if torch.cuda.is_available() else "cpu"
        options = {"device": device, "dtype": "auto", "trust_remote_code": False}
        with loading(f"--model {model}", "write a function, --callable MODULE:FUNCTION"):
            self._pipeline = transformers.pipeline("image-text-to-text", model=model, **options)
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
            raise JudgeError(describe_error(error, with_place=True), image_specific=True) from error
        return [(answer[0] if isinstance(answer, list) else answer)["generated_text"] for answer in answers]


class CallableJudge:
    """A model with code of its own, as a function of decoded images and questions that returns the answers.

    Args:
        name: `MODULE:FUNCTION`; the module is looked for in the working directory too.
        batch_size: Images at once.

    Raises:
        StepError: It cannot be imported, or is no function.
    """

    concurrency = 1

    def __init__(self, name: str, batch_size: int) -> None:
        self.batch_size = batch_size
        self._function: Callable[[list[PIL.Image.Image], list[str]], list[str]] = import_function(name)

    def ask(self, images: list[bytes], questions: list[str]) -> list[str]:
        """See `Judge`."""
        decoded = [*map(decode_rgb, images)]
        try:
            return [*self._function(decoded, questions)]
        except Exception as error:  # any model may raise anything
            raise JudgeError(describe_error(error, with_place=True), image_specific=True) from error


def decode_rgb(image: bytes) -> PIL.Image.Image:
    """Decodes an image to 8-bit RGB.

    Raises:
        JudgeError: It cannot be decoded.
    """
    try:
        return to_rgb(decode(image, "the image"))
    except SourceError as error:
        raise JudgeError(str(error), image_specific=True) from error


def _is_unreachable(error: BaseException) -> bool:
    """True if no connection was made: refused, no such host, no route, or a certificate that is not trusted."""
    # By name, because the client uses `httpx` or `httpx2`, depending on its version.
    return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
