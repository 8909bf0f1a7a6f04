"""`vggtransfer index ...` and `search`, as they are typed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys

import pytest

from vggtransfer.cli import main
from vggtransfer.retrieval.image_index import ImageIndex


def run(*words, capsys):
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


@pytest.fixture
def index(collection, tmp_path, capsys):
    (collection / "train" / "a" / "bad.jpg").write_bytes(b"no picture")
    options = ["--arch", "vgg16_bn_x0_25", "--image-size", 32, "--device", "cpu", "--whiten", 8, "--workers", 0]
    printed = run("index", "build", "--data", collection, "--out", tmp_path / "index", *options, capsys=capsys)
    assert "12 pictures, 8 dimensions (pca), Flat" in printed
    return tmp_path / "index"


def test_from_folder_to_neighbours_and_back(index, collection, tmp_path, capsys, drawn):
    query = collection / "val" / "b" / "07.png"
    found = json.loads(run("search", index, query, "-k", 3, "--format", "json", capsys=capsys))
    (only,) = found["queries"]
    assert [len(only["neighbours"]), only["neighbours"][0]["path"]] == [3, str(query)]
    rows = list(csv.DictReader(io.StringIO(run("search", index, collection / "val", "--format", "csv", capsys=capsys))))
    assert [len(rows), rows[0]["rank"], rows[0]["label"]] == [30, "1", "a"]
    assert "07.png" in run("search", index, query, "--filter", "label=b", capsys=capsys)
    refined = json.loads(run("search", index, query, "--rerank", 12, "--augment", 3, "--format", "json", capsys=capsys))
    assert len(refined["queries"][0]["neighbours"]) == 10
    run("search", index, query, "--format", "html", "--out", tmp_path / "page.html", "-k", 4, capsys=capsys)
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)

    assert "bad.jpg: not a picture" in run("index", "info", index, capsys=capsys)
    assert json.loads(run("index", "info", index, "--format", "json", capsys=capsys))["labels"] == dict.fromkeys(
        "abc", 4
    )
    assert "all parts agree" in run("index", "verify", index, capsys=capsys)
    drawn(collection / "train" / "a" / "new.png", 400)
    assert "1 added, 12 unchanged; 1 embedded; 13 pictures" in run(
        "index", "sync", index, "--workers", 0, capsys=capsys
    )
    assert "removed 5 pictures; 8 are left" in run(
        "index", "remove", index, collection / "train/a", query, capsys=capsys
    )
    assert "1 added, 8 unchanged; 1 embedded" in run("index", "add", index, query, "--workers", 0, capsys=capsys)
    assert "HNSW32" in run("index", "rebuild", index, "--kind", "hnsw", capsys=capsys)
    assert "0 groups" in run("index", "duplicates", index, "--threshold", 1, capsys=capsys)

    truth = [
        {"query": "val/b/07.png", "easy": ["val/b/07.png"], "hard": ["train/b/04.png"], "junk": ["train/b/05.png"]}
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    words = [
        "index",
        "evaluate",
        index,
        "--ground-truth",
        tmp_path / "truth.json",
        "--device",
        "cpu",
        "--format",
        "json",
    ]
    scores = json.loads(run(*words, capsys=capsys))
    assert scores["recall"] == {"1": 1.0, "10": 1.0}
    assert (scores["labels"]["queries"], scores["labelled"]) == (8, 9)  # one is the only picture of its class
    assert scores["landmarks"]["easy"]["mean_average_precision"] == 1
    assert 0 < scores["landmarks"]["hard"]["mean_average_precision"] <= 1
    refined = json.loads(run(*words, "--augment", 3, "--rerank", 4, capsys=capsys))
    assert refined["recall"] == scores["recall"]
    assert refined["labels"]["mean_average_precision"] != scores["labels"]["mean_average_precision"]


MISTAKES = (
    (["search", "INDEX", "PICTURE", "--filter", "b"], "write it as label=NAME"),
    (["search", "INDEX", "PICTURE", "--format", "html"], "name it with --out"),
    (["search", "INDEX", "BAD"], "none of the pictures can be read"),
    (["index", "evaluate", "INDEX", "--sample", "0"], "sample=0"),
    (["index", "evaluate", "INDEX", "--rerank", "-1"], "rerank=-1"),
    (["index", "rebuild", "INDEX", "--recall", "2"], "recall=2"),
    (["index", "remove", "INDEX", "elsewhere.png"], "has no picture elsewhere.png"),
    (["index", "verify", "PICTURE"], "there is no index"),
)


def test_mistakes_are_told_in_a_line(index, collection, capsys):
    places = {
        "INDEX": index,
        "PICTURE": collection / "train" / "b" / "05.png",
        "BAD": collection / "train" / "a" / "bad.jpg",
    }
    for words, said in MISTAKES:
        assert main([str(places.get(word, word)) for word in words]) == 2, words
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_two_processes_share_the_work_and_one_writes_the_index(tmp_path, drawn, monkeypatch):
    for number in range(130):  # three parts
        drawn(tmp_path / "photos" / f"{number:03d}.png", number)
    words = [sys.executable, "-m", "vggtransfer", "index", "build", "--data", "photos", "--out", "index"]
    words += ["--arch", "vgg16_bn_x0_25", "--image-size", "32", "--workers", "0", "--device", "cpu"]
    started = [
        subprocess.Popen(
            words,
            cwd=tmp_path,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert any("wrote index: 130 pictures" in text for text in printed)
    opened = ImageIndex.open(tmp_path / "index")
    opened.verify()
    assert len(opened) == 130
    assert not list((tmp_path / "index").glob("parts-*"))
    drawn(tmp_path / "others" / "1.png", 1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    again = ["--out", str(tmp_path / "index"), *words[-8:]]
    assert main(["index", "build", "--data", str(tmp_path / "others"), *again]) == 2  # another folder is no repetition
