"""Reader of parquet files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.data.formats.request import TRANSLATION, Request, as_data_error


def read_parquet(path: Path, request: Request) -> pa.Table:
    """Read the columns that are asked for, after a check of each page's checksum, where it has one."""
    with (
        as_data_error(path, "parquet file", "copy or write it again"),
        pq.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        names = file.schema_arrow.names
        if names == [TRANSLATION]:
            return file.read()
        request.check(names, path)
        used = {*request.columns(names).values(), *request.optional}
        return file.read(columns=[name for name in names if name in used])
