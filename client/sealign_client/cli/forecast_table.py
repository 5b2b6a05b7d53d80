"""A forecast of generation as a table for people."""

from __future__ import annotations

from rich.table import Table
from sealign_client.generation import Forecast


def forecast_table(forecast: Forecast) -> Table:
    """The forecast for a terminal."""
    likeness, cost = forecast.compatibility, forecast.cost
    variance = forecast.explained_variance
    table = Table("forecast", "", box=None, pad_edge=False, show_header=False)
    table.add_row("vocabularies, Jaccard index", f"{likeness.jaccard:.4f}")
    table.add_row(f"tokens cut exactly alike, of {likeness.tokens}", f"{likeness.exact_match:.4f}")
    table.add_row("tokens that end alike", f"{likeness.boundary_match:.4f}")
    table.add_row("explained variance of hidden states", "no map yet" if variance is None else f"{variance:.4f}")
    if forecast.divergence is not None:
        table.add_row("divergence of predictions, refined map, nats a token", f"{forecast.divergence:.4f}")
    table.add_row("parameters", cost.parameters)
    table.add_row("error of a logit, at most", f"{cost.precision:.4f}")
    table.add_row("KB a token, up and down", f"{cost.sent / 1e3:.0f} + {cost.received / 1e3:.0f}")
    table.add_row("ms a token, ciphertexts and a link of 100 Mbit/s", f"{cost.seconds * 1e3:.0f}")
    table.add_row("ms a token, own model", f"{forecast.model_seconds * 1e3:.0f}")
    return table
