#!/usr/bin/env bash
# Tells Ray that the provider will take this spot instance back; cluster.yaml and gcp.yaml start it on each worker.
#
# Amazon says so two minutes before, Google half a minute, at an address that only the instance reaches. Ray then drains
# the node: a training run writes a checkpoint at once and goes on elsewhere without counting a failure, and Serve
# starts other replicas first. On a machine that is no spot instance it waits for ever. METADATA replaces the address, and
# NOTICE_S the seconds until the node is no longer used.
set -uo pipefail
metadata=${METADATA:-http://169.254.169.254}

amazon() {  # 404 until there is a notice
    local token
    token=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/latest/api/token") || return 1
    curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/spot/instance-action"
}
google() {
    [ "$(curl -sf -m 2 -H 'Metadata-Flavor: Google' "$metadata/computeMetadata/v1/instance/preempted")" = TRUE ]
}

while :; do
    if amazon; then left=110; break; fi
    if google; then left=25; break; fi
    sleep 5
done
echo "this instance will be taken back: draining its Ray node"
exec ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the provider takes the instance back" \
    --deadline-remaining-seconds "${NOTICE_S:-$left}"
