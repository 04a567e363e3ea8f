# Loses and restores a disk ("When the disk dies" in docs/operations.md) with containers, following the README of the
# Compose files step by step. Sourced by ./run, whose functions it uses.
# shellcheck shell=bash disable=SC2154,SC2034

# Prints how far the archive is behind according to the service's metric, or -1 if the service cannot be reached.
archive_behind() {
  compose exec -T nginx curl --silent --max-time 2 http://api:3000/metrics 2>/dev/null |
    sed -n 's/^widgets_archive_behind_seconds //p' | grep . || echo -1
}

wait_until_archived() {
  local _
  # The metric may not include the newest answers yet.
  sleep 2
  for _ in {1..300}; do
    [[ $(archive_behind) == 0 ]] && return
    sleep 0.2
  done
  fail "the archive does not catch up: $(compose logs --tail=5 api)"
}

# Runs a command from the README word for word, except that `exec` gets no terminal. Its output is in as-written.log.
as_written() {
  local command=$1 text
  text=$(sed 's/\\$//' "$root/deployments/docker-compose/README.md" | tr -s ' \n' ' ')
  [[ $text == *"$command"* ]] || fail "the README does not have: $command"
  (cd "$root/deployments/docker-compose" && eval "${command/ exec / exec -T }") >"$work/as-written.log" 2>&1 ||
    fail "$command: $(tail -20 "$work/as-written.log")"
}

disk_dies() {
  say "when the disk dies: docker-compose.archive.yml"
  files=(-f docker-compose.embedded.yml -f docker-compose.archive.yml)
  export COMPOSE_FILE=docker-compose.embedded.yml:docker-compose.archive.yml
  as_written 'docker-compose up -d'
  local _ made=
  for _ in {1..150}; do
    compose exec -T s3 sh -c 'echo s3.bucket.list | weed shell -master=127.0.0.1:9333' 2>/dev/null | grep '^ *widgets' >/dev/null && made=yes && break
    sleep 0.2
  done
  [[ -n $made ]] || fail "the bucket does not exist: $(compose logs --tail=5 s3)"
  expect 204 add_widget A
  load archive 500 10s || fail "the load with an archive: $(cat "$work/reports/archive.txt")"
  report archive "embedded store with an archive"
  wait_until_archived
  local volumes start
  volumes=$(docker volume ls --quiet)
  as_written 'docker-compose --profile check run --rm archive-check'
  grep -q 'is intact: ' "$work/as-written.log" || fail "the drill: $(cat "$work/as-written.log")"
  [[ $(docker volume ls --quiet) == "$volumes" ]] || fail "the drill left its volume"
  # The running service and its volume are lost.
  docker kill "$(compose ps --quiet api)" >/dev/null
  as_written 'docker-compose rm --force --stop api'
  docker volume rm "${COMPOSE_PROJECT_NAME}_widgets-data" >/dev/null
  start=$EPOCHREALTIME
  as_written 'docker-compose run --rm --no-deps api restore --data-dir /data'
  grep -q '^restored ' "$work/as-written.log" || fail "the restore: $(cat "$work/as-written.log")"
  say "$(grep '^restored ' "$work/as-written.log")"
  as_written 'STORE_MUST_EXIST=true docker-compose up -d'
  expect 409 add_widget A
  figure "embedded: a lost volume restored from the archive and served again" "$(bc <<<"($EPOCHREALTIME - $start) / 1") s"
  expect 204 add_widget B
  wait_until_archived
  [[ $(compose exec -T nginx curl --silent http://api:3000/metrics | grep -c '^widgets_archive_stopped 0$') == 1 ]] ||
    fail "the restored service does not continue its archive"
  as_written 'docker-compose --profile prune run --rm archive-prune'
  as_written 'docker-compose --profile check run --rm archive-check'
  # With a wrong key the drill fails, but the service continues.
  if AWS_SECRET_ACCESS_KEY=wrong compose --profile check run --rm archive-check >"$work/wrong.log" 2>&1; then
    fail "a drill with a wrong key passes: $(cat "$work/wrong.log")"
  fi
  expect 204 add_widget C
  unset COMPOSE_FILE
  quietly_compose down --volumes
}
