"""Between wire messages and domain types, one module per contract file.

Everything that comes in is checked here, once. Every ``*_from_wire`` raises `InvalidInputError` (or
`InsecureParametersError`) for values that no honest peer sends, and before it makes anything whose size a peer chose.
"""
