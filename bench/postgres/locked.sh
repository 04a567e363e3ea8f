#!/usr/bin/env bash
# Measures what callers notice when another transaction (in `psql`, without a COMMIT) has locked widgets: 16 connections
# add widgets that are not locked: alone, beside locked rows, and beside 800 connections that ask only for the locked
# rows. Starts a separate PostgreSQL; needs Debian's postgresql, wrk and a release build of widgets.
#
#   bench/postgres/locked.sh [BINARY] [SECONDS]
set -Eeuo pipefail
trap 'echo "bench/postgres/locked.sh: line $LINENO failed with $?" >&2' ERR
cd "$(dirname "$0")"
binary=$(realpath "${1:-../../target/release/widgets}") seconds=${2:-5}
postgres=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
folder=$(mktemp -d)
# PostgreSQL refuses to run as root.
as=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$folder"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
fi
started=()
end() {
  [ ${#started[@]} = 0 ] || kill "${started[@]}" 2> /dev/null || true
  [ ! -e "$folder/data/postmaster.pid" ] || "${as[@]}" "$postgres/pg_ctl" -s -w -D "$folder/data" -m immediate stop
  wait
  rm -rf --one-file-system "$folder"
}
trap end EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PGHOST=$folder PGPORT=$port PGUSER=postgres PGDATABASE=postgres
url="@${folder//\//%2F}:$port/postgres?sslmode=disable"
"${as[@]}" "$postgres/initdb" --no-sync -D "$folder/data" -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
  > "$folder/initdb.log"
"${as[@]}" "$postgres/pg_ctl" -s -w -D "$folder/data" -l "$folder/server.log" -o "-k $folder -h '' -p $port" start
"$binary" migrate --store "postgres://postgres$url" > /dev/null
psql -qc "INSERT INTO widgets.widgets (serial_number, name, port1)
  SELECT 'held' || n, '', 'P' FROM generate_series(1, 50000) n" -c 'VACUUM ANALYZE widgets.widgets'
"$binary" serve --listen 127.0.0.1:0 --store "postgres://authenticator$url" > "$folder/serve.log" 2>&1 &
started+=($!)
until address=$(grep -o -m1 'listens on http://.*' "$folder/serve.log" | cut -d/ -f3); do
  kill -0 ${started[-1]}
  sleep 0.1
done

# Measures the 16 connections while ROWS are locked and CONNECTIONS others ask for those rows.
round() { # ROWS CONNECTIONS
  local holder='' pid=''
  if [ "$1" -gt 0 ]; then
    coproc holder_of { exec psql -qAt; }
    holder=$holder_of_PID
    echo "BEGIN; SELECT count(*) FROM (SELECT FROM widgets.widgets WHERE serial_number IN
      (SELECT 'held' || n FROM generate_series(1, $1) n) FOR UPDATE) locked;" >&"${holder_of[1]}"
    read -r _ <&"${holder_of[0]}"
  fi
  if [ "$2" -gt 0 ]; then
    wrk -t1 -c"$2" -d"$((seconds + 4))s" --timeout 30s -s locked.lua "http://$address" -- held "$1" > "$folder/held.log" &
    pid=$!
    sleep 2
  fi
  wrk -t1 -c16 -d"${seconds}s" --timeout 30s --latency -s locked.lua "http://$address" -- free "of$1-$2-" > "$folder/free.log"
  printf '%6s rows locked, %3s connections that ask for them: the 16 others %s\n' "$1" "$2" "$(tail -1 "$folder/free.log")"
  if [ -n "$pid" ]; then
    wait "$pid"
    printf '%55s: they themselves %s\n' '' "$(tail -1 "$folder/held.log")"
  fi
  if [ -n "$holder" ]; then
    echo 'ROLLBACK;' >&"${holder_of[1]}"
    exec {holder_of[1]}>&-
    wait "$holder" || true
  fi
}
round 0 0
round 50000 0
for rows in 1 100 50000; do
  round "$rows" 800
done
