#!/usr/bin/env bash
# A Ray cluster of three hosts on one machine: ray up, ray job submit, a host that is cut off, ray down.
#
#   bash reliability/cluster/run.sh             the whole scenario (reliability/cluster/scenario.py), with times
#   bash reliability/cluster/run.sh short       without the host that is cut off, a search and rejected jobs
#   bash reliability/cluster/run.sh scaling     training throughput on one host and on two
#   bash reliability/cluster/run.sh head        a service whose head is killed under load, with Redis behind it
#   bash reliability/cluster/run.sh spot        a training run of which a host is taken back, with notice
#
# Each host is a set of Linux namespaces with its own address, name, processes, /tmp and sshd. All hosts live inside one
# outer set of namespaces, which ends with this command: the kernel then removes every process, link and mount.
# Exit code 77: this machine cannot make such hosts; the last line says why.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() { echo "skipped: $1" >&2; exit 77; }

[ "$(id -u)" = 0 ] || skip "only root can make hosts out of namespaces"
for tool in unshare ip ssh ssh-keygen rsync curl pgrep; do
    command -v "$tool" >/dev/null || skip "$tool is not installed (Debian: util-linux iproute2 openssh-client rsync curl procps)"
done
[ "${1:-}" != head ] || command -v redis-server >/dev/null || skip "redis-server is not installed (Debian: redis-server)"
[ -x /usr/sbin/sshd ] || skip "sshd is not installed (Debian: openssh-server)"
[ -e .venv/bin/ray ] || skip "there is no .venv with Ray: run make test, or uv sync --locked"
OUTER=(unshare --net --mount --pid --uts --ipc --fork --kill-child --mount-proc)
"${OUTER[@]}" bash -c 'ip link set lo up && ip link add probe type bridge && mount -t tmpfs none /mnt' 2>/dev/null \
    || skip "this machine does not allow new namespaces with a bridge and mounts"

ROOT=$(mktemp -d /var/tmp/hosts-XXXXXX)  # the hosts' disks; outside /tmp, because each host has its own /tmp
"${OUTER[@]}" .venv/bin/python -m reliability.cluster.scenario "$ROOT" "$@" &
SCENARIO=$!
finish() {
    kill -KILL "$SCENARIO" 2>/dev/null || true   # --kill-child ends every process of every host with it
    wait "$SCENARIO" 2>/dev/null || true
    for _ in 1 2 3 4 5; do rm -rf "$ROOT" 2>/dev/null && break; sleep 1; done
}
trap finish EXIT
trap 'exit 130' INT TERM
wait "$SCENARIO"
