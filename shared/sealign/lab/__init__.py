"""Tools for whoever has both encoders at hand, or wants to know what an encrypted product costs: `sealign-lab`.

- ``evaluation`` measures what alignment costs in accuracy, and which method wins how much of it back.
- ``bench`` measures the encrypted product against TenSEAL's own.
- ``plan_table`` and ``packing_table`` show what the planner considers.
"""
