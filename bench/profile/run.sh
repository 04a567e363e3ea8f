#!/usr/bin/env bash
# Shows by thread and layer where CPU time goes while widgets are added over HTTP as fast as possible.
# Needs root, Debian's linux-perf, Python and a release build of widgets.
#
#   bench/profile/run.sh FOLDER [STORE]
#
# STORE is a PostgreSQL URL, as for --store, of a migrated database that the run may fill. Without STORE, the run
# makes a new embedded store in FOLDER.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$here/../../target/release/widgets
mkdir -p "$1"
folder=$(realpath "$1")
if [ -n "${2:-}" ]; then
  store=(--store "$2")
else
  rm -rf "$folder/data"
  store=(--data-dir "$folder/data")
fi
rm -f "$folder/serve.log"
"$binary" serve --listen 127.0.0.1:0 "${store[@]}" > "$folder/serve.log" 2>&1 &
service=$!
trap 'kill $service; wait' EXIT
until address=$(grep -o -m1 'listens on http://.*' "$folder/serve.log" 2> /dev/null | cut -d' ' -f3); do
  kill -0 $service
  sleep 0.1
done
"$binary" load "$address" --seed "$(date +%s)" --connections 256 --rate max --mix add_widget=1 --warm-up 2s \
  --duration 8s --audit none > "$folder/load.txt" 2>&1 &
load=$!
sleep 4
perf record --freq 1500 --all-cpus -g --output "$folder/perf.data" -- sleep 4 > "$folder/perf.log" 2>&1
wait $load
grep ' a second' "$folder/load.txt"
perf script -i "$folder/perf.data" -F comm,ip,sym 2>> "$folder/perf.log" | python3 "$here/layers.py"
