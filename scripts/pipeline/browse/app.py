"""The Gradio app, and the server.

Gradio draws the controls; the gallery and the large image are HTML of `parts` in it. One text holds everything that is
shown, the query of the address: each event changes the filter, and the page follows. Nothing is written to the disk.
"""

import functools
import html
import importlib.metadata
import ipaddress
import logging
import os
import shlex
import socket
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from pipeline.browse.filters import MATCHES, MAX_TEXT, Filter, chosen_labels, from_query, label_choices
from pipeline.browse.gallery import Gallery, View
from pipeline.browse.guard import MAX_EVENT, Guard
from pipeline.errors import StepError
from pipeline.imports import INSTALL, check_installed
from pipeline.progress import write_line

HERE = Path(__file__).parent
ADDRESS = HERE / "address.js"
# On a phone the filter is closed at first, so that images are on the first screen.
START = """() => {
  if (matchMedia("(max-width: 48rem)").matches) document.querySelector("#filter > button")?.click();
  return [location.search];
}"""
PREVIOUS, NEXT = "← Previous", "Next →"
SOURCE_ORDER = "order of the source"
CLOSING = 1  # seconds that open connections get at the end


def check_browse() -> None:
    """Checks that Gradio is installed, and turns off what it and the Hub's client report.

    Raises:
        StepError: It is not, or another version is needed.
    """
    check_installed("gradio", needed_by="browse_images.py")
    needed, found = Requirement(*shlex.split(INSTALL["gradio"])), importlib.metadata.version("gradio")
    if not needed.specifier.contains(found, prereleases=True):  # it lacks arguments that are used here
        raise StepError(f"browse_images.py needs {needed}, not {found}: pip install '{needed}'")
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that takes connections; they wait until `serve` answers.

    Args:
        host: Address or name to listen at.
        port: Port; 0: any free one.

    Raises:
        StepError: The address cannot be used.
    """
    try:
        if not host:
            raise OSError("no address")  # to `bind` it is that of all networks
        host = _without_prefix(host)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise StepError(f"--host {host} --port {port}: {error}; name another, or end what uses it") from None
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a response may wait 40 ms for an ACK
    return listening


def _without_prefix(host: str) -> str:
    """Returns an IPv4 address that is written as an IPv6 one, as it is; anything else unchanged.

    Browsers write such an address in yet another way, and not every Python takes it for one of the loopback.
    """
    try:
        return str(getattr(ipaddress.ip_address(host), "ipv4_mapped", None) or host)
    except ValueError:  # a name
        return host


def serve(gallery: Gallery, title: str, listening: socket.socket) -> None:
    """Serves the page until a signal ends the process.

    Args:
        gallery: What to show.
        title: Of the page.
        listening: From `listen`. Its address is printed.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a request that is cut off now is no error
            await super().shutdown(sockets)

    host, port, *_ = listening.getsockname()
    config = uvicorn.Config(
        make_app(gallery, title, (host, port)),
        log_level="warning",
        timeout_graceful_shutdown=CLOSING,
        http="h11",
        h11_max_incomplete_event_size=MAX_EVENT,  # else 16 KiB, which the longest address exceeds
    )
    write_line(f"open http://{_in_address(host)}:{port}/ in a browser; Ctrl-C ends this program")
    Server(config).run(sockets=[listening])


def _in_address(host: str) -> str:
    """Returns an IP address as it stands in an address of the web."""
    return f"[{host}]" if ":" in host else host


def make_app(gallery: Gallery, title: str, address: tuple[str, int] = ("127.0.0.1", 0)) -> Any:
    """Returns the ASGI app.

    Args:
        gallery: What to show.
        title: Of the page.
        address: IP address and port; on the loopback other names of the host are refused, so that no page of another
            server can read this one.
    """
    import fastapi
    import gradio
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def files_csv(request: fastapi.Request) -> fastapi.Response:
        names = gallery.file_names(request.url.query)
        saved = {"Content-Disposition": 'attachment; filename="files.csv"'}
        return fastapi.Response(names, media_type="text/csv; charset=utf-8", headers=saved)

    app.add_api_route("/files.csv", files_csv, methods=["GET"])
    gradio.mount_gradio_app(
        app,
        _make_blocks(gallery, title),
        path="/",
        server_name=address[0],
        server_port=address[1],
        css=(HERE / "app.css").read_text(encoding="utf-8"),
        footer_links=[],
        mcp_server=False,
        pwa=False,
        run_history=False,
        ssr_mode=False,
        theme=_theme(),
    )
    app.add_middleware(Guard)
    if ipaddress.ip_address(address[0]).is_loopback:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", _in_address(address[0])])
    return app


def _theme() -> Any:
    """Returns Gradio's default theme with the fonts of the system."""
    import gradio

    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    readable = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
    readable |= {"block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300"}
    return theme.set(**readable)


def _make_blocks(gallery: Gallery, title: str) -> Any:
    """Returns the page; see the description of this module."""
    import gradio as gr

    script = (HERE / "app.js").read_text(encoding="utf-8")
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as blocks:
        query = gr.Textbox(visible="hidden", elem_id="query", container=False)
        gr.HTML(f"<h1>{html.escape(title)}</h1>")
        with gr.Row():
            with gr.Column(scale=1, min_width=260), gr.Accordion("Filter", open=True, elem_id="filter"):
                controls = _make_controls(gallery.index)
                clear = gr.Button("Clear all", size="sm", elem_id="clear")
            with gr.Column(scale=4, min_width=280):
                status = gr.HTML(elem_id="status")
                with gr.Row(elem_classes="pager"):
                    before = gr.Button(PREVIOUS, size="sm", elem_id="before", min_width=80)
                    number = gr.Number(
                        1, label="Page", show_label=False, container=False, precision=0, min_width=70, elem_id="page"
                    )
                    pages = gr.HTML(elem_id="pages", min_width=60, padding=False)
                    after = gr.Button(NEXT, size="sm", elem_id="after", min_width=80)
                tiles = gr.HTML(js_on_load=script, elem_id="gallery", padding=False)
                with gr.Row(elem_classes="pager"):
                    before_below = gr.Button(PREVIOUS, size="sm", min_width=80)
                    after_below = gr.Button(NEXT, size="sm", elem_id="after-below", min_width=80)
                with gr.Accordion("Labels of all images that match", open=True):
                    counts = gr.HTML(elem_id="counts")
        detail = gr.HTML(js_on_load=script, elem_id="detail")
        moves = (before, after, before_below, after_below)
        _connect(blocks, gallery, _Shown(query, status, tiles, counts, detail, number, pages, *moves), controls, clear)
    return blocks


class _Shown(NamedTuple):
    """The components that each event may change."""

    query: Any
    status: Any
    tiles: Any
    counts: Any
    detail: Any
    number: Any
    pages: Any
    before: Any
    after: Any
    before_below: Any
    after_below: Any


def _values(view: View) -> list[Any]:
    """Returns the values of `_Shown`."""
    import gradio as gr

    page, pages = view.filter.page, view.pages
    moves = [gr.Button(interactive=possible) for possible in (page > 1, page < pages) * 2]
    parts = [view.query, view.status, view.tiles, view.counts, view.detail]
    return [*parts, gr.Number(page, minimum=1, maximum=pages), f"of {pages:,}", *moves]


def _connect(blocks: Any, gallery: Gallery, shown: _Shown, controls: list[Any], clear: Any) -> None:
    """Says what each event does. All get the query of the address first."""
    import gradio as gr

    def start(search: str) -> list[Any]:
        view = gallery.view(search)
        return [*_values(view), *_values_of_controls(view.filter)]

    def choose(query: str, *values: Any) -> Any:
        wanted = _filter_of(*values)
        if wanted == from_query(query)[0]._replace(page=1, image=""):  # a text box has only lost the focus
            return gr.skip()
        return _values(gallery.show(wanted))

    def turn(query: str, page: float | None, by: int = 0) -> Any:
        wanted = from_query(query)[0]
        goal = wanted.page + by if by else int(page or 1)
        return gr.skip() if goal == wanted.page else _values(gallery.show(wanted._replace(page=goal, image="")))

    def open_image(query: str, event: gr.EventData) -> list[Any]:
        row = event._data.get("row") if isinstance(event._data, dict) else None
        wanted = from_query(query)[0]
        opened = gallery.opened(wanted, row if isinstance(row, int) else -1)
        if opened.page != wanted.page:
            return _values(gallery.show(opened))
        parts = dict(zip([shown.query, shown.detail], gallery.opened_view(opened)))
        return [parts.get(part, gr.skip()) for part in shown]

    def close_image(query: str) -> tuple[str, str]:
        return gallery.opened_view(from_query(query)[0]._replace(image=""))

    # Not queued: an answer takes a part of a second, and one request instead of two.
    options: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "queue": False}
    everything = [*shown, *controls]
    blocks.load(start, shown.query, everything, js=START, **options)
    clear.click(functools.partial(start, ""), None, everything, **options)
    for control in controls:
        events = [control.submit, control.blur] if isinstance(control, gr.Textbox) else [control.input]
        for event in events:
            # What is typed while an answer is awaited is the next question.
            event(choose, [shown.query, *controls], [*shown], trigger_mode="always_last", **options)
    for button, by in ((shown.before, -1), (shown.after, 1), (shown.before_below, -1), (shown.after_below, 1)):
        button.click(functools.partial(turn, by=by), [shown.query, shown.number], [*shown], **options)
    shown.number.submit(turn, [shown.query, shown.number], [*shown], **options)
    for part in (shown.tiles, shown.detail):
        part.open(open_image, shown.query, [*shown], **options)
    shown.detail.close(close_image, shown.query, [shown.query, shown.detail], **options)
    shown.query.change(None, shown.query, None, js=ADDRESS.read_text(encoding="utf-8"))


def _make_controls(index: Any) -> list[Any]:
    """Returns the controls, in the order of `_filter_of`."""
    import gradio as gr

    labels = gr.Dropdown([*label_choices()], label="Labels", multiselect=True, elem_id="labels", value=[])
    match = gr.Radio([*MATCHES], value=MATCHES[0], label="Of several labels", elem_id="match")
    text_box = functools.partial(gr.Textbox, max_length=MAX_TEXT)
    words = text_box(label="Words of the prompt", info='Enter starts; "left base" is a phrase', elem_id="words")
    has_answers, has_patients, has_lists = bool(index.answers), bool(index.patients), bool(index.lists)
    qualities = gr.Dropdown(
        index.qualities, label="Judge's quality", multiselect=True, visible=has_answers, elem_id="qualities", value=[]
    )
    patient = text_box(label="Patient", info="the whole name", visible=has_patients, elem_id="patient")
    name = text_box(label="File name", info="a part of it", elem_id="name")
    orders = [(SOURCE_ORDER, ""), *((title, title) for title in index.lists)]
    sort = gr.Dropdown(orders, value="", label="Sort by", visible=has_lists, elem_id="sort")
    return [labels, match, words, qualities, patient, name, sort]


def _filter_of(
    labels: list[str], match: str, words: str, qualities: list[str], patient: str, name: str, sort: str
) -> Filter:
    words, patient, name = ((text or "").strip()[:MAX_TEXT] for text in (words, patient, name))
    return Filter(chosen_labels(labels or []), match, words, tuple(qualities or ()), patient, name, sort or "")


def _values_of_controls(wanted: Filter) -> list[Any]:
    labels = [f"{label}: {state}" for label, state in wanted.labels]
    return [labels, wanted.match, wanted.words, [*wanted.qualities], wanted.patient, wanted.name, wanted.sort]
