"""The part of an evaluation that measures generation: a client's hidden states behind a map, a silo's head."""

from sealign.lab.evaluation.generation.runner import GenerationRunner

__all__ = ["GenerationRunner"]
