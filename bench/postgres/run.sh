#!/usr/bin/env bash
# One call for each operation by pgbench (32 clients, no HTTP) against the service over HTTP (wrk, 256
# connections), on one PostgreSQL in one run, alternating. Needs pgbench, wrk and psql, a database that
# `widgets migrate` has prepared and load.sql has filled and that no run has used before, and a release
# build of widgets.
#
#   bench/postgres/run.sh HOST PORT DATABASE [WIDGETS] [SECONDS] [ROUNDS]
#
# HOST is a name or the folder of a socket; the user is $PGUSER, `postgres` unless set. Every operation
# names widgets that no other one of the run names, so that none is refused.
set -euo pipefail
cd "$(dirname "$0")"
host=$1 port=$2 database=$3 widgets=${4:-10000000} seconds=${5:-10} rounds=${6:-2}
user=${PGUSER:-postgres}
binary=../../target/release/widgets
export PGHOST=$host PGPORT=$port PGUSER=$user PGDATABASE=$database

log=$(mktemp)
"$binary" serve --listen 127.0.0.1:0 \
  --store "postgres://$user@${host//\//%2F}:$port/$database?sslmode=disable" > "$log" &
service=$!
trap 'kill $service; rm -f "$log"' EXIT
until address=$(grep -o -m1 'listens on http://.*' "$log" | cut -d' ' -f3); do
  kill -0 $service
  sleep 0.1
done

single() { # OPERATION START REMOVED
  printf '%-18s pgbench, 32 clients:   ' "$1"
  pgbench --no-vacuum --protocol=prepared --client=32 --jobs=2 --time="$seconds" --define=n=0 \
    --define=start="$2" --define=removed="$3" --define=widgets="$widgets" --file="pgbench/$1.sql" 2>&1 |
    awk '/^tps/ { printf "%.0f/s\n", $3 } /ERROR/ { print }'
}
http() { # OPERATION START REMOVED
  printf '%-18s HTTP, 256 connections: ' "$1"
  wrk -t1 -c256 -d"${seconds}s" -s operations.lua "$address" -- "$1" "$2" "$widgets" "$3" | tail -1
}

# The loaded widgets in their permuted order: four tenths for associations (two for each), four for
# those of the mix, one for removals, one for those of the mix. Each run of a program takes its part.
parts=$((2 * rounds))
pairs=$((widgets / 5 / parts))
removals=$((widgets / 10 / parts))
both() { # OPERATION START STEP REMOVED
  single "$1" $(($2 + 2 * round * $3)) $(($4 + 2 * round * removals))
  http "$1" $(($2 + (2 * round + 1) * $3)) $(($4 + (2 * round + 1) * removals))
}
for ((round = 0; round < rounds; round++)); do
  both add_widget 0 50000000 0
  both associate_widgets 0 $pairs 0
  both remove_widget $((widgets * 8 / 10)) $removals 0
  # Its adds lie between those above.
  both mix $((widgets / 5)) $pairs $((widgets * 9 / 10))
done
