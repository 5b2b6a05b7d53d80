"""Offline work: embed texts, train heads, keep and refine what generation needs. Never imported by what serves."""
