#!/usr/bin/env bash
# Counts the program's instructions for an add over HTTP, by thread. Other work on the machine does not change the
# figures. The kernel's instructions are not counted. Needs Debian's valgrind and a release build of widgets.
#
#   bench/profile/instructions.sh FOLDER
#
# The thread with the most instructions is an HTTP worker, the next one the owner of the state. To see the share of
# each function: callgrind_annotate FOLDER/callgrind.out-NN
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$here/../../target/release/widgets
mkdir -p "$1"
folder=$(realpath "$1")
rm -rf "$folder/data" "$folder/serve.log" "$folder"/callgrind.out*
valgrind --tool=callgrind --instr-atstart=no --separate-threads=yes \
  --callgrind-out-file="$folder/callgrind.out" "$binary" serve --listen 127.0.0.1:0 \
  --data-dir "$folder/data" > "$folder/serve.log" 2>&1 &
service=$!
trap 'kill $service 2> /dev/null || true; wait' EXIT
until address=$(grep -o -m1 'listens on http://.*' "$folder/serve.log" 2> /dev/null | cut -d' ' -f3); do
  kill -0 $service
  sleep 0.1
done
load() {
  "$binary" load "$address" --seed "$1" --connections 64 --rate max --mix add_widget=1 --warm-up 0s \
    --duration "$2" --audit none > "$folder/load.txt" 2>&1
}
load 1 3s
callgrind_control -i on $service > /dev/null
load 2 10s
callgrind_control -i off $service > /dev/null
# The line of outcomes alternates between an outcome and its count.
count=$(awk '/^add_widget +ok/ { gsub(",", ""); for (i = 3; i <= NF; i += 2) sum += $i; print sum }' "$folder/load.txt")
kill $service
wait $service || true
for file in "$folder"/callgrind.out-*; do
  awk -v name="$(basename "$file")" -v count=$count \
    '/^totals:/ && $2 > count { printf "%s: %d instructions an add, of %d adds\n", name, $2 / count, count }' "$file"
done | sort -t' ' -k2 -nr
