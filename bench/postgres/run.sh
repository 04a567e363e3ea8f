#!/usr/bin/env bash
# Compares pgbench with one call per operation (32 clients, no HTTP) with the service over HTTP (wrk, 256
# connections), alternately in one run on one PostgreSQL. Starts that server; needs Debian's postgresql, wrk
# and a release build of widgets.
#
#   bench/postgres/run.sh FOLDER [WIDGETS] [SECONDS] [ROUNDS]
#
# `database` is the CPU time per operation of the PostgreSQL server. It would be the limit of a server on a
# separate machine.
#
# If FOLDER/loaded is missing, the script makes it and fills it by load.sql (150 bytes per widget); with
# 0 ROUNDS it does only that. Every run works on a copy, FOLDER/run, and leaves it for inspection. Every
# operation names widgets that no other operation of the run names, so that none is refused. Set PROCESSES
# to measure that number of services behind nginx instead of a single service. Set APART to give the server
# the first CPU and everything else the second, as if the server had a separate machine.
set -Eeuo pipefail
# Most of the commands that can fail write into a log.
trap 'echo "bench/postgres/run.sh: line $LINENO failed with $?; see ${folder:-the folder}/*.log" >&2' ERR
cd "$(dirname "$0")"
widgets=${2:-10000000} seconds=${3:-10} rounds=${4:-2} processes=${PROCESSES:-1}
binary=$PWD/../../target/release/widgets
postgres=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
mkdir -p "$1"
folder=$(realpath "$1")
# PostgreSQL refuses to run as root.
as=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$folder"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
fi
export PGHOST=$folder PGUSER=postgres PGDATABASE=postgres
server_only=() others_only=()
if [ -n "${APART:-}" ]; then
  server_only=(taskset --cpu-list 0) others_only=(taskset --cpu-list 1)
fi
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
PGPORT=$(free_port)
export PGPORT
url="@${folder//\//%2F}:$PGPORT/postgres?sslmode=disable"

# The same settings for both. fsync and synchronous_commit keep their default, on.
settings=(shared_buffers=6GB max_wal_size=16GB checkpoint_timeout=30min wal_compression=lz4
  wal_buffers=64MB max_connections=100)
start() { # DATA
  "${server_only[@]}" "${as[@]}" "$postgres/pg_ctl" -s -w -D "$folder/$1" -l "$folder/$1.log" \
    -o "-k $folder -h '' -p $PGPORT ${settings[*]/#/-c }" start
}
stop() { # DATA
  "${as[@]}" "$postgres/pg_ctl" -s -w -D "$folder/$1" -m fast stop
}

data='' started=()
end() {
  [ ${#started[@]} = 0 ] || kill "${started[@]}"
  wait
  [ -z "$data" ] || stop "$data"
}
trap end EXIT

if [ ! -d "$folder/loaded" ]; then
  rm -rf "$folder/loading"
  "${as[@]}" "$postgres/initdb" --no-sync -D "$folder/loading" -U postgres --auth=trust --encoding=UTF8 \
    --locale=C.UTF-8 > "$folder/initdb.log"
  start loading
  data=loading
  "$binary" migrate --store "postgres://postgres$url" > "$folder/migrate.log"
  psql -q -v widgets="$widgets" -f load.sql
  stop loading
  data=''
  mv "$folder/loading" "$folder/loaded"
fi
[ "$rounds" -gt 0 ] || exit 0
rm -rf "$folder/run" "$folder/run.log"
"${as[@]}" cp -a "$folder/loaded" "$folder/run"
sync
start run
data=run
printf '%s widgets; PostgreSQL %s, %s\n' "$widgets" "$(psql -Atc 'SHOW server_version')" "${settings[*]}"
[ -z "${APART:-}" ] || echo 'the server on CPU 0, everything else on CPU 1'
psql -Atc "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')"
psql -q -v widgets="$widgets" -f warm.sql > "$folder/warm.log"

addresses=()
for ((process = 0; process < processes; process++)); do
  rm -f "$folder/serve.$process.log"
  "${others_only[@]}" "$binary" serve --listen 127.0.0.1:0 --store "postgres://authenticator$url" > "$folder/serve.$process.log" 2>&1 &
  started+=($!)
  until address=$(grep -o -m1 'listens on http://.*' "$folder/serve.$process.log" 2> /dev/null | cut -d/ -f3); do
    kill -0 ${started[-1]}
    sleep 0.1
  done
  addresses+=("$address")
done
address=http://${addresses[0]}
if [ -n "${PROCESSES:-}" ]; then
  nginx_port=$(free_port)
  cat > "$folder/nginx.conf" <<CONF
worker_processes 1;
daemon off;
pid $folder/nginx.pid;
error_log $folder/nginx.log;
events { worker_connections 2048; }
http {
  access_log off;
  keepalive_requests 1000000000;
  upstream widgets {
    $(printf 'server %s; ' "${addresses[@]}")
    keepalive 256;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:$nginx_port;
    location / {
      proxy_pass http://widgets;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
CONF
  "${others_only[@]}" nginx -c "$folder/nginx.conf" &
  started+=($!)
  address=http://127.0.0.1:$nginx_port
  until (exec 3<> "/dev/tcp/127.0.0.1/$nginx_port") 2> /dev/null; do
    kill -0 ${started[-1]}
    sleep 0.1
  done
fi

# Prints the CPU time that the server has used so far, in hundredths of a second (CLK_TCK).
used() {
  local server
  server=$(head -1 "$folder/run/postmaster.pid")
  # The parent counts the time of processes that have ended, but only once it has waited for them.
  sleep 1
  { cat "/proc/$server/stat"; pgrep --parent "$server" | sed 's|.*|/proc/&/stat|' | xargs cat 2> /dev/null || true; } |
    awk -v server="$server" '{ sum += $14 + $15 } $1 == server { sum += $16 + $17 } END { print sum }'
}
single() { # OPERATION START REMOVED
  local before
  before=$(used)
  "${others_only[@]}" pgbench --no-vacuum --protocol=prepared --client=32 --jobs=2 --time="$seconds" --define=n=0 \
    --define=start="$2" --define=removed="$3" --define=widgets="$widgets" --file="pgbench/$1.sql" \
    > "$folder/single.log" 2>&1 || {
    grep -m1 -E 'ERROR|error' "$folder/single.log" >&2
    echo "$1: pgbench stopped. If an operation was refused, $widgets widgets are too few for $rounds rounds of" \
      "$seconds s: each is named once. Give more WIDGETS, or fewer SECONDS." >&2
    exit 1
  }
  awk -v operation="$1" -v used="$(($(used) - before))" '
    /^number of transactions actually processed/ { count = $6 }
    /^latency average/ { mean = $4 }
    /^tps/ { tps = $3 }
    /ERROR/ { print }
    END {
      printf "%-18s pgbench, 32 clients:   %.0f/s database=%.1fus mean=%sms\n",
        operation, tps, used * 10000 / count, mean
    }' "$folder/single.log"
}
http() { # OPERATION START REMOVED
  local before
  before=$(used)
  "${others_only[@]}" wrk -t1 -c256 -d"${seconds}s" -s operations.lua "$address" -- "$1" "$2" "$widgets" "$3" > "$folder/http.log"
  tail -1 "$folder/http.log" | awk -v operation="$1" -v used="$(($(used) - before))" '{
      match($0, / of [0-9]+/)
      count = substr($0, RSTART + 4, RLENGTH - 4)
      rate = $1
      $1 = ""
      printf "%-18s HTTP, 256 connections: %s database=%.1fus%s\n", operation, rate, used * 10000 / count, $0
    }'
}

# The loaded widgets in their permuted order: three tenths for associations (two widgets each), three tenths
# for the mix's associations, two tenths for removals, two tenths for the mix's removals. Each run of a program
# takes its own part. The two alternate in going first, because the first change to a page after a checkpoint
# costs more.
parts=$((2 * rounds))
pairs=$((widgets * 3 / 20 / parts))
removals=$((widgets / 5 / parts))
both() { # OPERATION START STEP REMOVED
  local first=single second=http
  [ $((round % 2)) = 0 ] || first=http second=single
  $first "$1" $(($2 + 2 * round * $3)) $(($4 + 2 * round * removals))
  $second "$1" $(($2 + (2 * round + 1) * $3)) $(($4 + (2 * round + 1) * removals))
}
for ((round = 0; round < rounds; round++)); do
  both add_widget 0 50000000 0
  both associate_widgets 0 $pairs 0
  both remove_widget $((widgets * 6 / 10)) $removals 0
  # The numbers of its adds lie between those of the adds above.
  both mix $((widgets * 3 / 20)) $pairs $((widgets * 8 / 10))
done
