"""Runs the application until it is told to stop."""

from __future__ import annotations

import socket

import uvicorn

from vggtransfer.retrieval.browse.app import make_app
from vggtransfer.retrieval.browse.snapshot import Watched


def make_server(watched: Watched, *, max_upload: int) -> uvicorn.Server:
    """Makes the server; `server.run(sockets=[...])` answers until `server.should_exit` is set.

    Args:
        watched: What it shows.
        max_upload: Bytes of a picture searched by.
    """
    return uvicorn.Server(
        uvicorn.Config(
            make_app(watched, max_upload=max_upload),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,  # warnings and tracebacks go to the terminal as Python sends them
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=16_384,
            timeout_graceful_shutdown=2,
        )
    )


def serve(watched: Watched, listening: socket.socket, *, max_upload: int) -> None:
    """Answers on a listening socket until Ctrl-C."""
    try:
        make_server(watched, max_upload=max_upload).run(sockets=[listening])
    except KeyboardInterrupt:  # the usual end; uvicorn has shut down, and passes it on
        print()
