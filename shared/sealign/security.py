"""Against whom parameters must hold."""

from __future__ import annotations

import enum


class SecurityTable(str, enum.Enum):
    """Which attackers a parameter set must withstand."""

    CLASSICAL = "classical"
    """Core-SVP of classical computers, 2^(0.292·β)."""
    POST_QUANTUM = "post_quantum"
    """Core-SVP of quantum computers, 2^(0.265·β)."""
