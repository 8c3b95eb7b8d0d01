#!/usr/bin/env bash
# Runs Prometheus and, where it is installed, Grafana for the Ray on this machine, until Ctrl-C.
#
#   make dashboards                           for the newest Ray on this machine
#   bash docs/monitoring/start.sh FOLDER      for another one: FOLDER is SESSION/metrics in its --temp-dir
#
# When its dashboard starts, Ray writes what both need: scrape targets and panels. Our panels (docs/grafana/*.json) are
# copied next to them, and our alert rules (alerts.yml) are added to the configuration of Prometheus, which shows them
# under /alerts. They are sent to the Alertmanager at ALERTMANAGER=HOST:PORT, without it to nobody. PROMETHEUS_PORT and
# GRAFANA_PORT choose other ports than 9090 and 3000; Ray must then be started with RAY_PROMETHEUS_HOST and
# RAY_GRAFANA_HOST, or its own dashboard shows no charts. Both listen only on 127.0.0.1.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
metrics=${1:-${RAY_TMPDIR:-/tmp}/ray/session_latest/metrics}
prometheus_port=${PROMETHEUS_PORT:-9090} grafana_port=${GRAFANA_PORT:-3000}

fail() { echo "error: $1" >&2; exit 1; }
[ -f "$metrics/prometheus/prometheus.yml" ] ||
    fail "$metrics has no prometheus.yml: start a Ray with its dashboard first (jobs.serve --dashboard-port 8265, or ray start --head)"
command -v prometheus > /dev/null ||
    fail "prometheus is not installed: apt-get install prometheus (then stop the service it starts), or see prometheus.io"

kept=$(mktemp -d)
children=()
stop() {
    trap '' INT TERM
    ((${#children[@]} == 0)) || { kill "${children[@]}" 2> /dev/null || true; wait "${children[@]}" 2> /dev/null || true; }
    rm -rf "$kept"
}
trap stop EXIT
trap 'exit 0' INT TERM

{
    cat "$metrics/prometheus/prometheus.yml"
    printf '\nrule_files: ["%s"]\n' "$here/alerts.yml"
    [ -z "${ALERTMANAGER:-}" ] ||
        printf 'alerting: {alertmanagers: [{static_configs: [{targets: ["%s"]}]}]}\n' "$ALERTMANAGER"
} > "$kept/prometheus.yml"
prometheus --config.file="$kept/prometheus.yml" --storage.tsdb.path="$kept/prometheus" \
    --web.listen-address="127.0.0.1:$prometheus_port" --log.level=warn &
children+=($!)
echo "Prometheus  http://127.0.0.1:$prometheus_port   (alerts: /alerts, what is scraped: /targets)"
targets=$(dirname "$metrics")/prom_metrics_service_discovery.json
echo "alerts go to ${ALERTMANAGER:-nobody: set ALERTMANAGER=HOST:PORT}"
[ ! -f "$targets" ] || echo "it scrapes   $(grep -oE '[0-9a-fA-F.:]+:[0-9]+' "$targets" | sort -u | tr '\n' ' ')"

home=$(for folder in "${GRAFANA_HOME:-}" /usr/share/grafana /opt/homebrew/share/grafana; do
    [ -n "$folder" ] && [ -d "$folder/public" ] && echo "$folder" && break; done || true)
if command -v grafana > /dev/null && [ -n "$home" ]; then
    cp "$here"/../grafana*.json "$here"/../grafana/*.json "$metrics/grafana/dashboards/" 2> /dev/null || true
    grafana server --homepath "$home" --config "$metrics/grafana/grafana.ini" \
        cfg:default.server.http_addr=127.0.0.1 cfg:default.server.http_port="$grafana_port" \
        cfg:default.paths.data="$kept/grafana" cfg:default.log.level=warn &
    children+=($!)
    echo "Grafana     http://127.0.0.1:$grafana_port"
else
    echo "Grafana is not installed, so there are no panels: see grafana.com/grafana/download (Debian has no package)"
fi
echo "stop with Ctrl-C"
wait -n "${children[@]}" || fail "Prometheus or Grafana ended: its last lines are above"
