#!/usr/bin/env bash
# Compares PostgreSQL's CPU time per operation between the functions of a release and those of this tree, in two
# databases on one server, alternately, with one session each. The figure is the backend's own time (schedstat), which
# other work on the machine disturbs less than it disturbs rates. Starts that server; needs Debian's postgresql, but no
# build of widgets.
#
#   bench/postgres/versions.sh [OPERATIONS] [ROUNDS] [BEFORE]
#
# BEFORE is the last migration of the release. It defaults to 6, that of 0.2.0. With `same`, both databases have this
# tree's functions, so that any difference is noise.
set -Eeuo pipefail
trap 'echo "bench/postgres/versions.sh: line $LINENO failed with $?" >&2' ERR
cd "$(dirname "$0")"
operations=${1:-20000} rounds=${2:-5} before=${3:-6}
[ "$before" != same ] || before=9999
migrations=../../crates/postgres/migrations
postgres=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
folder=$(mktemp -d)
# PostgreSQL refuses to run as root.
as=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$folder"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
fi
end() {
  [ ! -e "$folder/data/postmaster.pid" ] || "${as[@]}" "$postgres/pg_ctl" -s -w -D "$folder/data" -m immediate stop
  rm -rf --one-file-system "$folder"
}
trap end EXIT
export PGHOST=$folder PGUSER=postgres PGDATABASE=postgres PGOPTIONS='-c client_min_messages=warning'
"${as[@]}" "$postgres/initdb" --no-sync -D "$folder/data" -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
  > "$folder/initdb.log"
# Only one session runs at a time. Syncing and vacuuming are not part of a backend's time.
"${as[@]}" "$postgres/pg_ctl" -s -w -D "$folder/data" -l "$folder/server.log" \
  -o "-k $folder -h '' -c fsync=off -c autovacuum=off -c shared_buffers=512MB -c max_wal_size=8GB -c checkpoint_timeout=1h" start

# Each database has 200,000 widgets with three slots each.
make_database() { # NAME LAST-MIGRATION
  local file files=()
  for file in "$migrations"/0*.sql; do
    [ "$((10#$(basename "$file" | cut -d_ -f1)))" -gt "$2" ] || files+=(--file="$file")
  done
  createdb "$1"
  psql -qd "$1" -v ON_ERROR_STOP=1 --single-transaction > "$folder/$1.log" -c 'SET LOCAL search_path = pg_catalog, pg_temp' \
    -c 'CREATE SCHEMA widgets; CREATE TABLE widgets.migrations (version integer PRIMARY KEY, name text, checksum text,
      applied_at timestamptz, oldest_program integer)' "${files[@]}"
  psql -qd "$1" -v ON_ERROR_STOP=1 > "$folder/$1.log" -f versions.sql
}
make_database before "$before"
make_database since 9999

declare -A calls
# Makes :count calls in one session and records the CPU time of its backend for those after the first :warm.
measure() { # DATABASE OPERATION COUNT STATEMENT
  {
    printf '\\set n :n + 1\n%s;\n' "$4"
    printf "\\\\if :n = :warm\nSELECT public.stamp('%s', :round, -1);\n" "$2"
    printf "\\\\elif :n = :count\nSELECT public.stamp('%s', :round, 1);\n\\\\endif\n" "$2"
  } > "$folder/$2.sql"
  local warm=$(($3 / 20 + 8))
  pgbench --no-vacuum --protocol=prepared --client=1 --transactions="$3" --define=n=0 --define=round="$round" \
    --define=count="$3" --define=warm="$warm" --file="$folder/$2.sql" "$1" > "$folder/pgbench.log" 2>&1 ||
    { cat "$folder/pgbench.log" >&2; exit 1; }
  calls["$2"]=$(($3 - warm))
}
# Measures an operation in both databases, which alternate in going first.
turn=0 names=()
both() { # OPERATION COUNT STATEMENT
  [ "$round" -gt 1 ] || names+=("$1")
  local databases=(before since)
  [ $((turn++ % 2)) = 0 ] || databases=(since before)
  measure "${databases[0]}" "$@"
  measure "${databases[1]}" "$@"
}
size=256 batches=$((operations / 256))
pair="'w' || (2 * :n * 7368787::bigint % 200000), 'w' || ((2 * :n + 1) * 7368787::bigint % 200000), 'P'"
for ((round = 1; round <= rounds; round++)); do
  both 'add_widget' "$operations" "SELECT widgets.add_widget('a' || :n, 'a widget of the bench', '{P,R}')"
  both 'lookup_widget' "$operations" "SELECT * FROM widgets.lookup_widget('a' || :n)"
  both 'associate_widgets' "$operations" "SELECT widgets.associate_widgets($pair)"
  both 'the same, refused (WG003)' "$operations" "SELECT public.refused($pair)"
  both 'remove_association' "$operations" "SELECT widgets.remove_association($pair)"
  both 'remove_widget, free' "$((operations / 2))" "SELECT widgets.remove_widget('a' || :n)"
  for database in before since; do
    psql -qd "$database" -c "SELECT widgets.associate_widgets('a' || n, 'a' || n + 1, 'P')
      FROM generate_series($operations / 2 + 1, $operations - 1, 2) n" > "$folder/psql.log"
  done
  both 'remove_widget, every other one associated' "$((operations / 2))" "SELECT widgets.remove_widget('a' || $operations / 2 + :n)"
  both "adds, $size a batch" "$batches" "SELECT public.adds(:n, $size)"
  both "lookups, $size a batch" "$batches" "SELECT public.lookups(:n, $size)"
  both "associations, $size a batch" "$batches" "SELECT public.pairs(:n, $size, true)"
  both "the same, $size a batch, refused" "$batches" "SELECT public.pairs(:n, $size, true)"
  both "removals of associations, $size a batch" "$batches" "SELECT public.pairs(:n, $size, false)"
  for database in before since; do
    psql -qd "$database" -c "SELECT widgets.associate_widgets('b' || n, 'b' || n + $size, 'P')
      FROM generate_series(1, $batches * $size - $size, 2) n WHERE n / $size % 2 = 0" > "$folder/psql.log"
  done
  both "removals of widgets, $size a batch" "$batches" "SELECT public.removals(:n, $size)"
  for database in before since; do
    psql -qd "$database" -c 'VACUUM ANALYZE widgets.widgets'
  done
done

printf '| operation | before, µs | since, µs | since / before |\n|---|---|---|---|\n'
for operation in "${names[@]}"; do
  for database in before since; do
    psql -qAtd "$database" -c "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ns) FROM (SELECT sum(ns) AS ns
      FROM public.taken WHERE operation = '$operation' GROUP BY round) round"
  done | paste -s | awk -v operation="$operation" -v calls="${calls[$operation]}" -v size="$size" '
    { each = operation ~ /a batch/ ? calls * size * 1000 : calls * 1000
      printf "| %s | %.1f | %.1f | %.2f |\n", operation, $1 / each, $2 / each, $2 / $1 }'
done
