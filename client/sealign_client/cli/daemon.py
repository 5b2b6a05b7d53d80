"""``sealign daemon``."""

from __future__ import annotations

from typing import Any

from sealign.app.options import with_options
from sealign_client.cli.common import Config, settings_of, single_command
from sealign_client.settings import ClientSettings

app = single_command()

_OF_SEVERAL_PROCESSES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""Variables that have prometheus_client write into another program's directory. The daemon is one process."""


@app.command()
@with_options(ClientSettings)
def daemon(given: dict[str, Any], config: Config = None) -> None:
    """Keep models, keys and connection warm, and serve applications on this machine over gRPC and HTTP.

    With --http, the address of the page is printed. It opens the page once.

    On TCP, applications send the content of the token file: authorization: Bearer TOKEN. A Unix socket can
    be opened by its owner alone and needs no token.
    """
    import asyncio
    import os

    from sealign.app.logs import configure_logs
    from sealign_client.daemon.server import run_daemon

    for name in _OF_SEVERAL_PROCESSES:
        os.environ.pop(name, None)
    settings = settings_of(config, given)
    configure_logs(settings.log_level)
    asyncio.run(run_daemon(settings))
