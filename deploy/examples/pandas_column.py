"""A column of texts in a pandas frame, classified by a silo: labels, probabilities and outliers as new columns.

python pandas_column.py reviews.csv sorted.csv --config sealign.toml --column review
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sealign_client import Client, client_settings


def with_labels(frame: pd.DataFrame, column: str, client: Client) -> pd.DataFrame:
    """Return the frame with the columns ``label``, ``probability`` and ``in_distribution``; empty cells get none."""
    texts = frame[column].dropna()
    results = pd.DataFrame(
        [(result.label, result.probability, result.in_distribution) for result in client.classify(texts)],
        index=texts.index,
        columns=["label", "probability", "in_distribution"],
    )
    return frame.join(results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Classify a column of a CSV file, and print how many texts each label got."""
    parser = argparse.ArgumentParser(description="Have a silo classify a column of a CSV file.")
    parser.add_argument("table", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", type=Path, help="settings; by default SEALIGN_CLIENT_… variables")
    parser.add_argument("--column", default="text")
    options = parser.parse_args(arguments)
    with Client(client_settings(options.config)) as client:
        frame = with_labels(pd.read_csv(options.table), options.column, client)
    frame.to_csv(options.output, index=False)
    outside = int((~frame["in_distribution"].dropna().astype(bool)).sum())
    print(frame["label"].value_counts().to_string())
    print(f"{outside} texts are unlike those that the classifier was made for")


if __name__ == "__main__":
    main()
