"""A Dask frame whose column of texts a silo classifies, in processes with one loaded model each.

python dask_frame.py 'reviews-*.csv' sorted/ --config sealign.toml --column review --processes 4
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import dask.dataframe as dd

from sealign_client import client_settings
from sealign_client.frames import FrameClassifier


def main(arguments: Sequence[str] | None = None) -> None:
    """Classify a column of CSV files into Parquet files, and print how many texts each label got."""
    parser = argparse.ArgumentParser(description="Have a silo classify a column of CSV files.")
    parser.add_argument("tables", help="path with wildcards")
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", type=Path, help="settings; by default SEALIGN_CLIENT_… variables")
    parser.add_argument("--column", default="text")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args(arguments)
    classifier = FrameClassifier(client_settings(options.config), options.column, on_error="label")
    frame = dd.read_csv(options.tables)
    answered = frame.map_partitions(classifier, meta=classifier(frame.head(0)))
    answered.to_parquet(options.output, compute_kwargs={"scheduler": "processes", "num_workers": options.processes})
    print(dd.read_parquet(options.output)["label"].value_counts().compute().to_string())


if __name__ == "__main__":
    main()
