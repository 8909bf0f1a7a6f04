from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from vggtransfer.cli import main
from vggtransfer.retrieval.browse.command import browse


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "python_multipart"])
def test_a_missing_extra_is_one_line_that_says_what_to_type(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["browse", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: vggtransfer browse needs {module}, which is not installed: pip install 'vggtransfer[web]'\n"
    )


def test_wrong_options_and_no_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", str(tmp_path), "--port", "70000"]) == 2
    assert main(["browse", str(tmp_path), "--max-upload", "0"]) == 2
    assert main(["browse", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "port=70000" in errors[0]
    assert "max_upload=0" in errors[1]
    assert "there is no index" in errors[2]


def test_a_port_in_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggtransfer.retrieval.image_index.ImageIndex.open", lambda _: [])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"--port {port}: address already in use; choose another one, or 0"):
            browse(tmp_path, port=port)
