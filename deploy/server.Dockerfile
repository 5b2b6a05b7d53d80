# A silo: evaluates encrypted products. Holds neither torch nor transformers.
#
#   docker build -f deploy/server.Dockerfile -t sealign-server .
#   docker build -f deploy/server.Dockerfile --target train -t sealign-train .
#
# Training and serving are separate images: the one that faces the network has no private labels to
# read, no machine-learning framework and no compiler or installer.

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/sealign
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY client client
COPY server server
COPY shared shared
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /dist . \
    && pip --python /opt/sealign/bin/python install --constraint constraints.txt \
        "$(echo /dist/*.whl)[server]"

# Adds what fits heads and embeds with Google USE. A silo whose own encoder is a transformers model
# trains where that model already runs, with `pip install sealign[server,train]`.
FROM build AS build-train
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/sealign/bin/python install --constraint constraints.txt \
        "$(echo /dist/*.whl)[server,use]" scikit-learn

FROM python:3.11-slim AS base
# Numeric, so that Kubernetes can check that it is not root.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin sealign \
    && install -d -o sealign -g sealign /silo /tls /tls/silo /tls/client
ENV PATH=/opt/sealign/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /silo
ENTRYPOINT ["sealign-server"]

FROM base AS train
COPY --from=build-train /opt/sealign /opt/sealign
USER 10001:10001

FROM base AS serve
COPY --from=build /opt/sealign /opt/sealign
USER 10001:10001
ENV SEALIGN_LISTEN=0.0.0.0:7443 \
    SEALIGN_ADDRESS=localhost:7443 \
    SEALIGN_TLS_CERT=/tls/silo.pem \
    SEALIGN_TLS_KEY=/tls/silo.key \
    SEALIGN_TLS_CA=/tls/ca.pem
EXPOSE 7443
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["sealign-server", "health"]
CMD ["serve", "/silo"]
