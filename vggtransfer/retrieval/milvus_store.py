"""A collection in Milvus: the only file that knows pymilvus.

Two collections of the database make one of ours: NAME with the pictures, and NAME_about with one row that says how
they were made, and the numbers of the whitening as further rows, for Milvus keeps nothing else of that size.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient, MilvusException

from vggtransfer.retrieval.vector_store import About, StoredPicture, StoreError
from vggtransfer.retrieval.whitening import Whitening

_SECONDS = 30.0
_LONGEST_TEXT = 65_535
_ROWS_AT_ONCE = 1_000
_PICTURE_FIELDS = list(StoredPicture._fields)

Method = TypeVar("Method", bound=Callable[..., Any])


def _in_one_line(method: Method) -> Method:
    """Turns what pymilvus raises in a method of `MilvusStore` into an error that names the place."""

    @wraps(method)
    def told(self: MilvusStore, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except MilvusException as error:
            reason = " ".join(str(error.message).split())
            raise StoreError(f"{self.address}, collection {self._name}: {reason or type(error).__name__}") from error

    return cast("Method", told)


class MilvusStore:
    """See `vggtransfer.retrieval.vector_store.VectorStore`.

    A user and password, or a token, are taken from the environment variable MILVUS_TOKEN.

    Args:
        uri: `http://HOST:PORT`.
        name: Of the collection.

    Raises:
        StoreError: Nobody answers there, or they refuse the token.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri, self._name = uri, name
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it would print what is raised as well
        self._connect()

    @property
    def address(self) -> str:
        return f"milvus+{self._uri}"

    @_in_one_line
    def _connect(self) -> None:
        self._client = MilvusClient(self._uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=_SECONDS)

    @property
    def _about_name(self) -> str:
        return f"{self._name}_about"

    @_in_one_line
    def about(self) -> About | None:
        if not self._client.has_collection(self._about_name):
            return None
        for name in (self._name, self._about_name):
            self._client.load_collection(name)  # a server that was started anew may have it on disk only
        rows = self._all_rows(self._about_name, ["row", "content", "vector"])
        rows.sort(key=lambda row: int(row["row"]))
        if not rows or rows[0]["row"] != 0:
            return None
        content = json.loads(rows[0]["content"])
        whitening = None
        if (kind := content.pop("whitening_kind")) is not None:
            mean, *projection = (np.asarray(row["vector"], np.float32) for row in rows)
            whitening = Whitening(kind, mean, np.stack(projection))
            if whitening.digest != content["whitening_digest"]:
                raise StoreError(f"{self.address}, collection {self._name}: its whitening is damaged; publish it again")
        del content["whitening_digest"]
        return About(**content, whitening=whitening)

    @_in_one_line
    def create(self, about: About, *, dimension: int) -> None:
        for name in (self._about_name, self._name):
            if self._client.has_collection(name):
                self._client.drop_collection(name)
        fields: dict[str, dict[str, Any]] = {
            "id": {"datatype": DataType.INT64, "is_primary": True},
            "name": {"datatype": DataType.VARCHAR, "max_length": _LONGEST_TEXT},
            "label": {"datatype": DataType.VARCHAR, "max_length": _LONGEST_TEXT},
            "sha256": {"datatype": DataType.VARCHAR, "max_length": 64},
            "bytes": {"datatype": DataType.INT64},
            "vector": {"datatype": DataType.FLOAT_VECTOR, "dim": dimension},
        }
        self._make(self._name, fields, metric="COSINE")
        fields = {
            "row": {"datatype": DataType.INT64, "is_primary": True},
            "content": {"datatype": DataType.VARCHAR, "max_length": _LONGEST_TEXT},
            "vector": {"datatype": DataType.FLOAT_VECTOR, "dim": about.embedding["dimension"]},
        }
        self._make(self._about_name, fields, metric="L2")
        if about.whitening is not None:
            rows = enumerate(about.whitening.projection, start=1)
            self._client.upsert(
                self._about_name, [{"row": number, "content": "", "vector": row} for number, row in rows]
            )
        self.describe(about)

    def _make(self, name: str, fields: dict[str, dict[str, Any]], *, metric: str) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for field, options in fields.items():
            schema.add_field(field, **options)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type=metric)
        # Strong: whoever searches after a command has ended sees what it did.
        self._client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")

    @_in_one_line
    def describe(self, about: About) -> None:
        whitening = about.whitening
        content = {name: value for name, value in asdict(about).items() if name != "whitening"}
        content["whitening_kind"] = None if whitening is None else whitening.kind
        content["whitening_digest"] = None if whitening is None else whitening.digest
        mean = np.zeros(about.embedding["dimension"], np.float32) if whitening is None else whitening.mean
        self._client.upsert(self._about_name, [{"row": 0, "content": json.dumps(content), "vector": mean}])

    def pictures(self) -> Iterator[StoredPicture]:
        return (StoredPicture(**row) for row in self._all_rows(self._name, _PICTURE_FIELDS))

    @_in_one_line
    def _all_rows(self, collection: str, fields: list[str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        pages = self._client.query_iterator(collection, batch_size=_ROWS_AT_ONCE, output_fields=fields)
        while page := pages.next():
            rows += ({field: row[field] for field in fields} for row in page)
        pages.close()
        return rows

    @_in_one_line
    def put(self, pictures: Sequence[StoredPicture], vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(pictures), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows = [
                {**picture._asdict(), "vector": vector}
                for picture, vector in zip(pictures[part], vectors[part], strict=True)
            ]
            self._client.upsert(self._name, rows)

    @_in_one_line
    def delete(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            self._client.delete(self._name, ids=list(ids[start : start + _ROWS_AT_ONCE]))

    @_in_one_line
    def vectors(self, ids: Sequence[int]) -> NDArray[np.float32]:
        rows = self._client.get(self._name, ids=list(ids), output_fields=["id", "vector"])
        found = {int(row["id"]): row["vector"] for row in rows}
        if missing := [one for one in ids if one not in found]:
            raise StoreError(f"{self.address}, collection {self._name}: has no picture with the id {missing[0]}")
        return np.array([found[one] for one in ids], np.float32)

    @_in_one_line
    def search(
        self, queries: NDArray[np.float32], *, k: int, label: str | None
    ) -> list[list[tuple[StoredPicture, float]]]:
        # Milvus reads the escapes of JSON, and no others, in its quoted texts.
        chosen = "" if label is None else f"label == {json.dumps(label, ensure_ascii=False)}"
        found = self._client.search(
            self._name,
            data=list(queries),
            limit=k,
            filter=chosen,
            anns_field="vector",
            output_fields=_PICTURE_FIELDS,
        )
        return [
            [
                (StoredPicture(**{field: hit["entity"][field] for field in _PICTURE_FIELDS}), float(hit["distance"]))
                for hit in hits
            ]
            for hits in found
        ]
