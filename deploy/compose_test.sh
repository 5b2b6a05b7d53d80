#!/usr/bin/env bash
# Runs compose.yaml on real text, from building the images to an application's accuracy, and checks
# that the application cannot reach the silo. Skips where no container engine can be had.
#   usage: PYTHON=.venv/bin/python deploy/compose_test.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
starter=../shared/tools/with-container-engine # starts an engine on a machine that has none running

engine_answers() { docker info && docker compose version; }
if ! engine_answers >/dev/null 2>&1; then
  if [ -z "${COMPOSE_TEST_STARTED:-}" ] && [ -x "$starter" ] &&
    "$starter" docker compose version >/dev/null 2>&1; then
    COMPOSE_TEST_STARTED=1 exec "$starter" bash deploy/compose_test.sh
  fi
  echo "compose-test: skipped: no container engine answers ('docker info' and 'docker compose version')"
  exit 0
fi

say() { printf 'compose-test: %s\n' "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }
compose() { docker compose --project-name sealign-test --file deploy/compose.yaml "$@"; }
run() { compose run --rm --no-TTY --no-deps "$@"; }

SEALIGN_RUN=$(mktemp -d)
finish() {
  status=$?
  [ "$status" = 0 ] || compose logs --tail 40 silo client || true
  compose --profile '*' down --volumes --remove-orphans --timeout 5 >/dev/null 2>&1 || true
  rm -rf "$SEALIGN_RUN"
}
trap finish EXIT
chmod 755 "$SEALIGN_RUN" # the containers' user is not this one
SEALIGN_MODEL_DIRECTORY=$("$python" -c 'from deploy.demo.data import all_minilm; print(all_minilm())')
export SEALIGN_RUN SEALIGN_MODEL_DIRECTORY

# Where pip finds torch's CPU build on this machine without an index, the image is built from that.
if "$python" -m pip download --quiet --no-deps --no-index --python-version 3.11 \
  --only-binary :all: --constraint constraints.txt --dest deploy/wheels torch >/dev/null 2>&1; then
  export TORCH_INDEX=https://pypi.org/simple
fi

say "building images"
compose --profile setup build --quiet
docker run --rm --network none --entrypoint python sealign-server -c '
from importlib.util import find_spec
found = [name for name in ("torch", "transformers", "sklearn", "pip") if find_spec(name)]
raise SystemExit(f"the server image holds {found}" if found else 0)'

say "preparing texts, certificates and the silo"
"$python" -m deploy.demo.export "$SEALIGN_RUN" --public 2000 --train 2500 --test 200
run certificates
run train init /silo --name example --encoder use --public /public/texts.txt
run train train /silo --task r8 --data /data/r8.tsv

say "serving"
compose up --wait --wait-timeout 120 silo
run align
compose up --wait --wait-timeout 180 client

say "an application classifies Reuters R8 through the daemon"
run app --daemon client:7450 --task r8 --minimum-accuracy 0.8 /data/r8.tsv

say "the application cannot reach the silo, the client can"
silo=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' \
  "$(compose ps --quiet silo)")
connect='import socket, sys; socket.create_connection((sys.argv[1], 7443), timeout=3)'
for host in silo "$silo"; do
  compose exec --no-TTY client python -c "$connect" "$host" || fail "the client cannot reach $host"
  if run --entrypoint python app -c "$connect" "$host" 2>/dev/null; then
    fail "the application reached the silo at $host"
  fi
done

say "the logs hold none of the texts"
compose logs --no-log-prefix silo client >"$SEALIGN_RUN/logs"
tail -n +2 "$SEALIGN_RUN/app/r8.tsv" | cut -f 2 | cut -c 1-40 >"$SEALIGN_RUN/beginnings"
if grep --quiet --fixed-strings --file "$SEALIGN_RUN/beginnings" "$SEALIGN_RUN/logs"; then
  fail "a query's text is in the logs"
fi
say "passed"
