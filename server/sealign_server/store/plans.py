"""Packing plans as plain values of a JSON file."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Any

from sealign.ckks import Block, PackingPlan, SecurityTable, parameter_set


def plan_to_document(plan: PackingPlan) -> dict[str, Any]:
    """Return a plan's fields and its id."""
    values = {field.name: getattr(plan, field.name) for field in fields(plan)}
    return values | {"parameters": plan.parameters.name, "block": astuple(plan.block), "id": plan.id}


def plan_from_document(document: dict[str, Any], table: SecurityTable) -> PackingPlan:
    """Return the plan in a document.

    Raises:
        ValueError, KeyError, TypeError: it is not one, or another than its id says.
        InsecureParametersError: the table does not hold its parameters.
    """
    values = {**document}
    name = values.pop("id")
    values["parameters"] = parameter_set(values["parameters"], table)
    values["block"] = Block(*values["block"])
    plan = PackingPlan(**values)
    if plan.id != name:
        raise ValueError("the plan is another than its id says")
    return plan
