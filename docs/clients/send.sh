#!/bin/sh
# Sends a message through a running node and waits until it is received or stored, SECONDS at most: send.sh KEY TEXT [SECONDS]
# The home of the node is that of `dht-node`: $DHT_NODE_HOME, or dht-node in the user's data folder.
set -eu
[ $# = 2 ] || [ $# = 3 ] || { echo "usage: send.sh KEY TEXT [SECONDS]" >&2; exit 2; }
end=$(($(date +%s) + ${3:-259200}))
socket=${DHT_NODE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/dht-node}/api.sock

no_node() {
    echo "no node answers at $socket; start one with: dht-node run --home ${socket%/api.sock}" >&2
    exit 1
}
[ -S "$socket" ] || no_node

api() { curl --silent --show-error --max-time 60 --unix-socket "$socket" "$@"; }
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"; }

# The text as a JSON string: backslashes, quotes and control characters escaped by their base64 form instead.
payload=$(printf %s "$2" | base64 | tr -d '\n')
# Sent again with the same key, it is still one message.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
answer=$(api --retry 3 --retry-all-errors -H "Idempotency-Key: $key" \
    --data "{\"to\":\"$1\",\"payload\":\"$payload\"}" http://localhost/v1/messages) || no_node
id=$(echo "$answer" | field id)
[ -n "$id" ] || { echo "$answer" >&2; exit 1; }

state=queued before= ended=
while :; do
    [ "$state" = "$before" ] || echo "message $id is $state"
    before=$state
    [ "$(date +%s)" -lt "$end" ] || exit 1
    case $state in
        received | stored) exit 0 ;;
        failed | expired) exit 1 ;;
        sent) [ -z "$ended" ] || exit 1 ;; # to a node that gives no receipts
    esac
    answer=$(api "http://localhost/v1/messages/$id?unlike=$state") || no_node
    state=$(echo "$answer" | field state) ended=$(echo "$answer" | field ended_at)
    [ -n "$state" ] || exit 1
done
