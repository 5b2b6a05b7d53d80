"""What the daemon says about itself: liveness, readiness, models, metrics."""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from sealign.errors import NoMapError, NoPlanError, NotFoundError, SealignError
from sealign_client.daemon.http.backend import Backend, SiloStatus, TaskStatus
from sealign_client.daemon.http.operations import TEXT, Call, Operation, json_response
from sealign_client.daemon.http.schemas import MAX_TEXTS, Alive, Canaries, Info, Model, ModelList, Ready, TaskInfo


async def health(call: Call) -> Response:  # noqa: ARG001
    """Answer ``GET /health``: the process runs, whatever the silo does."""
    return json_response(Alive())


async def ready(call: Call) -> Response:
    """Answer ``GET /ready``: the silo answers, and a task can be used."""
    backend = call.service.backend
    silo = await backend.silo()
    tasks = await backend.tasks()
    usable = [task for task in tasks if task.ready]
    if not tasks:
        raise NotFoundError("The silo serves no task. Ask its operator.")
    if not usable and await backend.maps():
        raise NoPlanError(
            "No task is ready for this daemon's map: the silo cannot serve them, or is still preparing them. Ask its "
            "operator, whose log says which."
        )
    if not usable:
        raise NoMapError(_unaligned(call.service.backend, tasks))
    return json_response(Ready(silo=silo.name, tasks=len(usable)))


def _unaligned(backend: Backend, tasks: list[TaskStatus]) -> str:
    if backend.encoder_name is None:
        return (
            "No task is ready: this daemon's model has no map to the silo. Run sealign align --generation "
            f"{tasks[0].name} --public FILE."
        )
    return (
        "No task is ready: this daemon's encoder has no map to the silo. Run sealign align --public FILE, or align on "
        "this daemon's page."
    )


async def info(call: Call) -> Response:
    """Answer ``GET /info``; the silo's part is empty while it is away."""
    backend, options = call.service.backend, call.service.options
    silo: SiloStatus | None
    tasks: list[TaskStatus]
    try:
        silo, tasks = await backend.silo(), await backend.tasks()
    except SealignError:
        silo, tasks = None, []
    answer = Info(
        version=version("sealign"),
        encoder=backend.encoder_name,
        model=backend.model_name,
        max_texts=MAX_TEXTS,
        max_body_bytes=options.max_body_bytes,
        max_concurrent=options.max_concurrent,
        silo=None if silo is None else silo.name,
        identity=None if silo is None else silo.identity,
        tasks=[TaskInfo.model_validate(task, from_attributes=True) for task in tasks],
        canaries=[Canaries.model_validate(report, from_attributes=True) for report in await backend.canaries()],
    )
    return json_response(answer)


async def models(call: Call) -> Response:
    """Answer ``GET /v1/models``: the tasks that can be used."""
    backend = call.service.backend
    silo = await backend.silo()
    usable = [task for task in await backend.tasks() if task.ready]
    return json_response(ModelList(data=[Model(id=task.name, owned_by=silo.name) for task in usable]))


async def metrics(call: Call) -> Response:
    """Answer ``GET /metrics``."""
    call.service.metrics.set_canaries(await call.service.backend.canaries())
    return Response(call.service.metrics.rendered(), media_type=CONTENT_TYPE_LATEST)


OPERATIONS = (
    Operation("GET", "/health", "health", "status", "Say whether the daemon runs.", health, Alive, secured=False),
    Operation(
        "GET",
        "/ready",
        "ready",
        "status",
        "Say whether the silo answers and a task can be used.",
        ready,
        Ready,
        faults=(404, 409, 429, 502, 503, 504),
        secured=False,
        works=True,
    ),
    Operation(
        "GET",
        "/info",
        "info",
        "status",
        "Describe the daemon and its tasks.",
        info,
        Info,
        faults=(429, 504),
        works=True,
    ),
    Operation(
        "GET",
        "/v1/models",
        "listModels",
        "status",
        "List the tasks that can be used, as OpenAI lists models.",
        models,
        ModelList,
        faults=(429, 502, 503, 504),
        works=True,
    ),
    Operation("GET", "/metrics", "metrics", "status", "Counts and times for Prometheus.", metrics, str, media=(TEXT,)),
)
