# Follows "Failover" in the README of the Compose files with containers: three nodes under Patroni, of which the primary is
# killed and comes back, and a switchover on purpose. Sourced by ./run, whose functions it uses (as_written is in
# disk-dies.sh).
# shellcheck shell=bash disable=SC2154,SC2034

# Prints the name of the node that has this role according to Patroni.
node_of() {
  compose exec -T "$1" patronictl -c /etc/patroni/patroni.yml list --format json 2>/dev/null |
    jq --raw-output --arg role "$2" 'map(select(.Role == $role and (.State == "running" or .State == "streaming"))) | first.Member // ""'
}

# Waits until a node, asked for on another one, has this role, and puts its name into the named variable.
until_node() {
  local asked=$1 role=$2 variable=$3 found _
  for _ in {1..150}; do
    found=$(node_of "$asked" "$role")
    if [[ -n $found ]]; then
      printf -v "$variable" %s "$found"
      return
    fi
    sleep 0.5
  done
  fail "no node is $role: $(compose exec -T "$asked" patronictl -c /etc/patroni/patroni.yml list 2>&1)"
}

# Adds widgets until one is acknowledged, and records its serial number in `added`. Each attempt has another one, because an
# attempt whose fate is unknown may have been applied.
until_added() {
  local what=$1 got attempt
  for attempt in {1..300}; do
    got=$(add_widget "$what-$attempt")
    if [[ $got == 204 ]]; then
      added+=("$what-$attempt")
      return
    fi
    sleep 0.2
  done
  fail "an addition gives $got, not 204: $(compose logs --tail=8 2>&1)"
}

three_nodes() {
  local added=()
  say "three PostgreSQL nodes under Patroni: docker-compose.failover.yml"
  files=(-f docker-compose.yml -f docker-compose.failover.yml)
  unset COMPOSE_FILE
  timed build_seconds quietly_compose build postgres
  figure "failover: the image of the nodes" "$build_seconds s"
  timed up_seconds quietly_compose up -d
  figure "failover: up, from nothing to all healthy" "$up_seconds s"
  until_added first
  as_written 'docker-compose -f docker-compose.yml -f docker-compose.failover.yml exec postgres patronictl -c /etc/patroni/patroni.yml list'
  local primary other start each
  until_node postgres Leader primary
  until_node postgres 'Sync Standby' other

  say "the primary, $primary, is killed"
  start=$EPOCHREALTIME
  docker kill "$(compose ps --quiet "$primary")" >/dev/null
  until_added second
  figure "failover: from the primary's end to the next addition" "$(bc <<<"($EPOCHREALTIME - $start) / 1") s"
  expect 409 add_widget "${added[0]}"
  quietly_compose up -d
  until_node "$primary" Leader other
  [[ $other != "$primary" ]] || fail "$primary is the primary again"

  say "a switchover"
  until_node "$primary" 'Sync Standby' each
  as_written "docker-compose -f docker-compose.yml -f docker-compose.failover.yml exec postgres bash -c 'export PATRONI_RESTAPI_USERNAME=postgres PATRONI_RESTAPI_PASSWORD=\$(</secrets/postgres); patronictl -c /etc/patroni/patroni.yml switchover --force'"
  until_added third
  until_node postgres Leader each
  [[ $each != "$other" ]] || fail "$other is still the primary: $(cat "$work/as-written.log")"
  for each in "${added[@]}"; do expect 409 add_widget "$each"; done
  quietly_compose down --volumes
}
