"""The index as a collection: what is found, and what stays right when pictures come and go."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import vggtransfer
from vggtransfer.errors import BadImageError, DataError, InputError, OptionError
from vggtransfer.retrieval import index_changes
from vggtransfer.retrieval.image_index import ImageIndex


@pytest.fixture
def index(collection, embedder, tmp_path):
    return ImageIndex.build(collection, out=tmp_path / "index", embedder=embedder, workers=0)


def contents(index):
    return {str(item.path): item.sha256 for item in index.items}


def test_a_picture_is_found_by_path_image_tensor_and_vector(index, collection, embedder):
    path = collection / "train" / "b" / "05.png"
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        queries = [path, image.copy(), pixels / 255, embedder.embed(pixels[None])[0]]
    for found in (index.search(query, k=3) for query in queries):
        assert found[0].path == path
        assert found[0].label == "b"
        assert found[0].score == pytest.approx(1, abs=1e-5)
        assert found[0].score >= found[1].score >= found[2].score
    scores = index.vectors() @ index.vectors([found[0].id])[0]
    assert [one.id for one in found] == np.argsort(-scores)[:3].tolist()


def test_neighbours_of_an_item_leave_it_out_and_labels_filter(index):
    item = index.items[4]
    assert item.id not in [one.id for one in index.neighbours_of(item.id, k=20)]
    assert len(index.neighbours_of(item.id, k=20)) == 11
    assert {one.label for one in index.neighbours_of(item.id, k=20, label="c")} == {"c"}
    assert index.labels == {"a": 4, "b": 4, "c": 4}
    with pytest.raises(OptionError, match=r"no picture of .* has the label 'd'"):
        index.neighbours_of(item.id, label="d")
    with pytest.raises(OptionError, match="no picture with the id 99"):
        index.neighbours_of(99)


def test_what_cannot_be_searched_for_is_said(index, tmp_path):
    with pytest.raises(InputError, match=r"vectors of shape \[2, 5\]"):
        index.search_many(np.zeros((2, 5), np.float32))
    with pytest.raises(OptionError, match="k=0"):
        index.search(np.zeros(48, np.float32), k=0)
    with pytest.raises(InputError, match="NaN or infinity"):
        index.search(np.full(48, np.nan, np.float32))
    with pytest.raises((BadImageError, OSError)):
        index.search(tmp_path / "nothing.png")


def test_expansion_draws_a_query_to_its_neighbours(index, embedder):
    query = index.vectors([3]) + 0.3
    plain = index.search_many(query / np.linalg.norm(query), k=1)[0][0]
    expanded = index.search_many(query / np.linalg.norm(query), k=1, expand=1)[0][0]
    assert expanded.id == plain.id
    assert expanded.score > plain.score


def test_expansion_adds_nothing_where_less_was_found(index, monkeypatch):
    query = index.vectors([3])
    found = np.array([[index.searching.state.table.rows[3], -1]])
    monkeypatch.setattr(index.searching, "rows", lambda queries, *, k: (np.ones((1, 2), np.float32), found))
    np.testing.assert_allclose(index.searching.expanded(query, count=2), query, atol=1e-6)


def test_refinement_changes_the_order_alone(index):
    query = index.vectors([3])
    plain = index.search_many(query, k=12)[0]
    for options in ({"augment": 3}, {"rerank": 12}):
        refined = index.search_many(query, k=12, **options)[0]
        assert sorted(refined) == sorted(plain), options
        assert index.search_many(query, k=2, **options)[0] == refined[:2], options
    with pytest.raises(OptionError, match="count=20 is not possible"):
        index.search_many(query, augment=20)


def test_sync_embeds_only_content_it_does_not_know(index, collection, embedder, drawn):
    assert embedder.embedded == 12
    ids = {item.path.name: item.id for item in index.items}
    (collection / "train" / "a" / "00.png").rename(collection / "train" / "b" / "moved.png")
    (collection / "train" / "a" / "01.png").unlink()
    drawn(collection / "train" / "a" / "02.png", 102)
    shutil.copy(collection / "train" / "b" / "04.png", collection / "val" / "a" / "copy.png")
    drawn(collection / "val" / "c" / "new.png", 103)
    drawn(collection / "val" / "c" / "again.png", 103)
    (collection / "train" / "c" / "bad.jpg").write_bytes(b"no picture")

    change = index.sync(workers=0)

    assert (change.added, change.changed, change.renamed, change.removed, change.unchanged) == (3, 1, 1, 1, 9)
    assert embedder.embedded - 12 == change.embedded == 2  # 102, and 103 once
    assert [bad.path.name for bad in change.bad] == ["bad.jpg"]
    now = {item.path.name: item for item in index.items}
    assert now["moved.png"].id == ids["00.png"]
    assert now["moved.png"].label == "b"
    assert now["02.png"].id == ids["02.png"]
    assert "01.png" not in now
    assert min(now[name].id for name in ("copy.png", "new.png", "again.png")) == 12
    for name in ("moved.png", "02.png", "copy.png", "again.png"):
        assert name in [one.path.name for one in index.search(now[name].path, k=2) if one.score > 0.9999]
    index.verify()

    generation = index.description["generation"]
    change = index.sync(workers=0)
    assert (change.embedded, change.unchanged, len(change.bad)) == (0, 14, 1)
    assert index.description["generation"] == generation
    assert contents(ImageIndex.open(index.path)) == contents(index)


def test_add_takes_pictures_from_elsewhere_and_sync_leaves_them(index, collection, tmp_path, drawn):
    other = drawn(tmp_path / "elsewhere" / "x.png", 200)
    change = index.add([other, collection / "train" / "a" / "00.png"], label="z", workers=0)
    assert (change.added, change.embedded, change.unchanged) == (1, 1, 12)
    other.unlink()
    index.sync(workers=0)
    assert [(item.path, item.label) for item in index.items if item.label == "z"] == [(other, "z")]
    assert index.search(index.vectors([12])[0], k=1)[0].path == other


def test_a_file_that_is_given_in_several_ways_is_one_picture(index, tmp_path, drawn, monkeypatch):
    picture = drawn(tmp_path / "elsewhere" / "x.png", 200)
    (tmp_path / "link").symlink_to("elsewhere")
    monkeypatch.chdir(tmp_path)
    given = [picture, "elsewhere/x.png", "link/x.png", "link/../elsewhere/x.png", "elsewhere"]
    assert index.add(given, workers=0).added == 1
    assert len(index) == 13
    index.verify()


def test_ids_are_never_given_twice_and_removed_rows_go_in_the_end(index, collection, drawn):
    assert index.remove([np.int64(11), collection / "train" / "a"]) == 4
    assert len(index) == 8
    index.verify()
    assert not {0, 1, 2, 11} & {one.id for one in index.neighbours_of(5, k=12)}
    with pytest.raises(OptionError, match="has no picture 11"):
        index.remove([11])
    with pytest.raises(OptionError, match="no picture would be left"):
        index.remove([collection])
    index.add([drawn(collection / "train" / "a" / "new.png", 300)], workers=0)
    assert index.items[-1].id == 12
    assert len(index._state.vectors) == 9  # a quarter of the rows was dead: written anew, without them
    index.verify()


def test_a_misspelt_kind_or_whitening_is_refused(index):
    for options in ({"kind": "hsnw"}, {"whiten": 4, "whitening": "lernt"}):
        with pytest.raises(OptionError, match="is not possible: use"):
            index.rebuild(**options)
    assert index.description["wanted"]["kind"] == "auto"


def test_another_encoder_is_refused(index, collection, colours):
    with pytest.raises(OptionError, match=r"another encoder.*weights 1 there, 2 now"):
        ImageIndex.open(index.path, embedder=colours("2"))
    with pytest.raises(OptionError, match="there is an index"):
        ImageIndex.build(collection, out=index.path, embedder=colours())


def test_a_rebuild_changes_kind_and_whitening_without_embedding(index, embedder):
    index.rebuild(kind="hnsw", whiten=6)
    assert index.description["index"]["factory"] == "HNSW32"
    assert index.vectors().shape == (12, 6)
    assert np.allclose(np.linalg.norm(index.vectors(), axis=1), 1, atol=1e-5)
    assert index.search(index.items[7].path, k=1)[0].id == 7
    index.verify()
    assert {one.label for one in index.neighbours_of(7, k=12, label="b")} == {"b"}
    index.remove([8])
    assert sorted(one.id for one in index.neighbours_of(7, k=12)) == [0, 1, 2, 3, 4, 5, 6, 9, 10, 11]
    index.sync(workers=0)
    assert (index.items[-1].id, index.description["index"]["kind"]) == (12, "hnsw")
    before, known = contents(index), embedder.embedded
    assert known == 13  # the one that was removed

    index.rebuild(whiten=5, whitening="learned")  # from pairs of the same class
    assert index.description["index"]["whitening"] == "learned"
    assert index.search(index.items[7].path, k=1)[0].id == 7
    index.rebuild(kind="flat", whiten=0)
    assert index.vectors().shape == (12, 48)
    assert (contents(index), embedder.embedded) == (before, known)


def test_duplicates_are_grouped_across_folders(index, collection, drawn):
    shutil.copy(collection / "train" / "a" / "00.png", collection / "val" / "b" / "same.png")
    with Image.open(collection / "train" / "c" / "08.png") as image:
        image.point(lambda value: value * 0.97).save(collection / "val" / "c" / "darker.png")
    index.sync(workers=0)
    groups = index.duplicates(threshold=0.99)
    assert {(group.kind, tuple(item.path.name for item in group.items)) for group in groups} == {
        ("exact", ("00.png", "same.png")),
        ("near", ("08.png", "darker.png")),
    }
    assert [group.kind for group in index.duplicates(threshold=1)] == ["exact"]
    with pytest.raises(OptionError, match="threshold=0"):
        index.duplicates(threshold=0)


def test_a_folder_without_a_single_good_picture_is_no_index(tmp_path, embedder):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no")
    with pytest.raises(DataError, match=r"none of 1 pictures can be read, the first: a\.jpg"):
        ImageIndex.build(tmp_path / "photos", out=tmp_path / "index", embedder=embedder)
    assert not (tmp_path / "index" / "index.yaml").exists()


def test_a_stopped_build_goes_on_where_it_was(tmp_path, embedder, drawn):
    for number in range(130):  # three parts: 64, 64, and the bad ones
        drawn(tmp_path / "photos" / f"{number:03d}.png", number)
    for number in range(128, 132):
        (tmp_path / "photos" / f"{number:03d}.png").write_bytes(b"no %d" % number)
    embed = embedder.embed

    def stopped(pictures):
        if embedder.embedded >= 64:
            raise KeyboardInterrupt
        return embed(pictures)

    embedder.embed = stopped
    with pytest.raises(KeyboardInterrupt, match="repeat the same command to go on"):
        ImageIndex.build(tmp_path / "photos", out=tmp_path / "index", embedder=embedder, workers=0)
    assert not (tmp_path / "index" / "index.yaml").exists()
    embedder.embed = embed
    index = ImageIndex.build(tmp_path / "photos", out=tmp_path / "index", embedder=embedder, workers=0)
    assert (len(index), embedder.embedded, len(index.bad_files)) == (128, 128, 4)
    index.verify()


def test_a_file_that_changes_while_it_is_read_gets_no_vector_of_another(collection, embedder, tmp_path, monkeypatch):
    state = index_changes._state
    monkeypatch.setattr(
        index_changes,
        "_state",
        lambda path: (1, b"\0" * 32, "") if path.name == "05.png" else state(path),
    )
    index = ImageIndex.build(collection, out=tmp_path / "index", embedder=embedder, workers=0)
    assert len(index) == 11
    assert "changed while it was being read" in index.bad_files["train/b/05.png"]
    monkeypatch.undo()
    change = index.sync(workers=0)
    assert (change.added, change.embedded, change.bad) == (1, 1, ())


def test_names_that_are_no_text_come_back_as_they_are(tmp_path, embedder, drawn):
    path = tmp_path / "photos" / "caf\udce9.png"
    drawn(path, 1)
    drawn(path.with_name("line\nbreak.png"), 2)
    ImageIndex.build(tmp_path / "photos", out=tmp_path / "index", embedder=embedder, workers=0)
    assert {item.path for item in ImageIndex.open(tmp_path / "index").items} == set((tmp_path / "photos").iterdir())


def test_a_network_finds_itself_again(tmp_path, collection):
    from vggtransfer.retrieval.embedder import Embedder

    built = vggtransfer.ImageIndex.build(
        collection, out=tmp_path / "index", embedder=Embedder("vgg16_bn_x0_25", image_size=32, device="cpu"), whiten=5
    )
    opened = vggtransfer.ImageIndex.open(built.path, device="cpu")
    path = collection / "val" / "b" / "07.png"
    found = opened.search(path, k=2)
    assert found[0].path == path
    assert found[0].score == pytest.approx(1, abs=1e-4)
    assert opened.embedder.digest == built.embedder.digest
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.resize((90, 50), Image.Resampling.NEAREST))).permute(2, 0, 1)
        of_image = opened.embed([image.resize((90, 50), Image.Resampling.NEAREST)])
    np.testing.assert_allclose(opened.embed([pixels / 255]), of_image, atol=1e-6)  # cropped, too
