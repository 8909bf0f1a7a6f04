"""Runs the application until it is told to stop."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Makes the server of an application; `server.run(sockets=[...])` answers until `server.should_exit` is set."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
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


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answers on a listening socket until Ctrl-C."""
    try:
        make_server(app).run(sockets=[listening])
    except KeyboardInterrupt:  # the usual end; uvicorn has shut down, and passes it on
        print()
