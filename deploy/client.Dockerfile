# A client: embeds texts with its own language model, encrypts, asks the silo, decrypts.
#
#   docker build -f deploy/client.Dockerfile -t sealign-client .
#
# torch comes in its CPU build. Behind a mirror, name another index (--build-arg TORCH_INDEX=URL), or
# lay the wheel in deploy/wheels, which is asked first; a GPU image names the CUDA index.

FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv --without-pip /opt/sealign
COPY constraints.txt ./
# By itself and first: the largest layer stays cached while the sources change.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=deploy/wheels,target=/wheels \
    pip --python /opt/sealign/bin/python install --constraint constraints.txt \
        --find-links /wheels --extra-index-url "$TORCH_INDEX" torch
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY server server
COPY shared shared
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /dist . \
    && pip --python /opt/sealign/bin/python install --constraint constraints.txt \
        "$(echo /dist/*.whl)[client]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin sealign
COPY --from=build /opt/sealign /opt/sealign
# The root file system may be read-only: what a library wants to cache goes to a tmpfs at /tmp.
ENV PATH=/opt/sealign/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp HF_HOME=/tmp/huggingface
USER 10001:10001
WORKDIR /tmp
EXPOSE 7450
ENTRYPOINT ["sealign"]
