"""The addresses of the search page."""

from __future__ import annotations

import random
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp

from vggtransfer.errors import BadImageError, OptionError, VGGTransferError
from vggtransfer.retrieval.browse.guard import Guard
from vggtransfer.retrieval.browse.pages import Choice, Pages
from vggtransfer.retrieval.browse.pictures import PictureServer
from vggtransfer.retrieval.browse.snapshot import Snapshot, Watched
from vggtransfer.retrieval.browse.uploads import SHOWN_SIDE, Upload, Uploads
from vggtransfer.retrieval.index_items import Item

_SIDES = {"small": 320, "large": SHOWN_SIDE}
_LARGEST_ID = 2**63 - 1

ItemId = Annotated[int, InPath(ge=0, le=_LARGEST_ID)]
Label = Annotated[str, Query(max_length=1000)]
Count = Annotated[int, Query(ge=1, le=200)]
PageNumber = Annotated[int, Query(ge=1, le=10**9)]
Threshold = Annotated[
    float | None,
    Query(ge=0.1, le=1),
    BeforeValidator(lambda given: given or None),  # a form sends an empty text for what was not chosen
]


def make_app(watched: Watched, *, max_upload: int) -> ASGIApp:
    """Makes the application that shows a collection.

    Args:
        watched: It.
        max_upload: Bytes of a picture searched by.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    pages, pictures, uploads = Pages(max_upload), PictureServer(), Uploads()

    @app.get("/")
    def home(label: Label = "", page: PageNumber = 1) -> Response:
        return HTMLResponse(pages.collection(watched.now(), label, page))

    @app.get("/random")
    def any_item() -> Response:
        items = watched.now().index.items
        if not items:
            raise HTTPException(404, "The collection is empty.")
        return RedirectResponse(f"/item/{random.choice(items).id}", 303)

    @app.get("/item/{id}")
    def item(id: ItemId, label: Label = "", k: Count = 24) -> Response:  # noqa: A002
        now = watched.now()
        shown = existing(now, id)
        found = [] if missing(now, label) else now.index.neighbours_of(id, k=k, label=label or None)
        return HTMLResponse(pages.item(now, shown, found, Choice(label, k)))

    @app.get("/picture/{id}/{size}")
    def picture(id: ItemId, size: str, request: Request) -> Response:  # noqa: A002
        shown = existing(watched.now(), id)
        if size not in _SIDES:
            raise HTTPException(404, "There is no such size.")
        headers = {"ETag": f'"{shown.sha256}"', "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        try:
            content = pictures.jpeg(shown.path, key=shown.sha256, side=_SIDES[size])
        except BadImageError:
            raise HTTPException(404, "The file of this picture is gone or can no longer be read.") from None
        return Response(content, media_type="image/jpeg", headers=headers)

    @app.post("/search")
    async def search(request: Request, label: Label = "", k: Count = 24) -> Response:
        async with request.form(max_files=1, max_fields=4) as form:
            given = form.get("picture")
            if not isinstance(given, UploadFile) or not given.size:
                raise HTTPException(400, "No picture was sent: choose a file first.")
            try:
                file = given.file
                token = await run_in_threadpool(lambda: uploads.add(file, watched.now().index))
            except BadImageError as error:
                raise HTTPException(415, f"This file cannot be searched by: {error}.") from None
        return RedirectResponse(f"/upload/{token}{Choice(label, k).in_address}", 303)

    @app.get("/upload/{token}")
    def results(token: str, label: Label = "", k: Count = 24) -> Response:
        now, vector = watched.now(), kept(token).vector
        found = [] if missing(now, label) else now.index.search(vector, k=k, label=label or None)
        return HTMLResponse(pages.upload(now, token, found, Choice(label, k)))

    @app.get("/upload/{token}/picture")
    def uploaded(token: str) -> Response:
        return Response(kept(token).jpeg, media_type="image/jpeg")

    @app.get("/duplicates")
    def duplicates(threshold: Threshold = None, page: PageNumber = 1) -> Response:
        return HTMLResponse(pages.duplicates(watched.now(), threshold, page))

    @app.get("/style.css")
    def style() -> Response:
        return Response(pages.style, media_type="text/css")

    @app.get("/browse.js")
    def script() -> Response:
        return Response(pages.script, media_type="text/javascript")

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)

    def existing(now: Snapshot, id: int) -> Item:  # noqa: A002
        try:
            return now.index.item(id)
        except OptionError:
            raise HTTPException(404, f"There is no picture {id} in this collection (any more).") from None

    def missing(now: Snapshot, label: str) -> bool:
        return bool(label) and label not in now.labels

    def kept(token: str) -> Upload:
        upload = uploads.get(token)
        if upload is None:
            raise HTTPException(404, "This search is no longer kept. Please choose the picture again.")
        return upload

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        text = error.detail if error.status_code != 404 or error.detail != "Not Found" else "There is no such page."
        return HTMLResponse(pages.message(watched.last, text), error.status_code)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, __: RequestValidationError) -> Response:
        return HTMLResponse(pages.message(watched.last, "This address cannot be understood."), 400)

    @app.exception_handler(VGGTransferError)
    async def unusable(_: Request, error: VGGTransferError) -> Response:
        # Weights that are gone, say: it tells what to do, to the person who started this.
        return HTMLResponse(pages.message(watched.last, str(error)), 503)

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        # The traceback goes to the terminal; here it would tell strangers about the machine.
        return HTMLResponse(pages.message(watched.last, "That went wrong. The terminal tells more."), 500)

    return Guard(app, hosts=("127.0.0.1", "localhost", "::1"), max_body=max_upload + 10_000)
