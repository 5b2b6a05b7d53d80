"""The frame that every Sealign program stands in.

- ``settings``, ``options``, ``addresses``: what is set, declared once and checked.
- ``console``, ``progress``, ``terminal``: command lines, exit statuses, progress, what a terminal may show.
- ``logs``: one JSON object per line.
- ``tls``: certificates and keys.
- ``frame``: the gRPC server's interceptors.
"""
