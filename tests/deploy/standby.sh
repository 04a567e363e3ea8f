# Follows "A standby" in the README of the Compose files step by step with containers: the stores switch roles, the primary
# is killed, the standby is promoted, and the old primary comes back. Sourced by ./run, whose functions it uses (as_written
# is in disk-dies.sh).
# shellcheck shell=bash disable=SC2154,SC2034

# Waits until an addition through HAProxy gets this status.
until_answered() {
  local wanted=$1 serial_number=$2 got _
  for _ in {1..300}; do
    got=$(add_widget "$serial_number")
    [[ $got == "$wanted" ]] && return
    sleep 0.2
  done
  fail "an addition through HAProxy gives $got, not $wanted: $(compose logs --tail=8 2>&1)"
}

# Prints the status with which a service of the project answers this path, asked at the address of its container.
status_of() {
  local service=$1 path=$2 address
  address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(compose ps --quiet "$service")" 2>/dev/null)
  status --max-time 2 "http://$address:3000$path"
}

# Waits until this service has this role: /ready is 200 on both, and with role=primary only on the primary.
until_role() {
  local service=$1 role=$2 wanted=200 got _
  [[ $role == primary ]] || wanted=503
  for _ in {1..300}; do
    got="$(status_of "$service" /ready) $(status_of "$service" '/ready?role=primary')"
    [[ $got == "200 $wanted" ]] && return
    sleep 0.2
  done
  fail "$service is not a $role: $got; $(compose logs --tail=8 "$service" 2>&1)"
}

two_stores() {
  say "two stores, of which one follows the other: docker-compose.standby.yml"
  files=(-f docker-compose.standby.yml)
  unset COMPOSE_FILE
  timed up_seconds quietly_compose up -d
  figure "two stores: up, from nothing to all healthy" "$up_seconds s"
  until_answered 204 first
  [[ $(status http://localhost/metrics) == 404 && $(status http://localhost/replication) == 404 ]] ||
    fail "HAProxy passes on paths that are only for the operator"
  until_role other standby
  export ONE_MUST_EXIST=true OTHER_MUST_EXIST=true
  quietly_compose up -d

  say "roles change, and back"
  as_written 'docker-compose -f docker-compose.standby.yml exec other widgets promote --switchover http://other:3000'
  until_role other primary
  until_role one standby
  until_answered 204 second
  expect 409 add_widget first
  quietly_compose exec -T one widgets promote --switchover http://one:3000
  until_role one primary
  until_role other standby
  until_answered 204 third

  say "the primary is killed, and comes back"
  docker kill "$(compose ps --quiet one)" >/dev/null
  as_written 'docker-compose -f docker-compose.standby.yml stop one'
  as_written 'docker-compose -f docker-compose.standby.yml exec other widgets promote http://other:3000'
  until_answered 204 fourth
  local each
  for each in first second third; do expect 409 add_widget "$each"; done
  quietly_compose up -d
  until_role one standby
  until_answered 409 fourth

  say "a volume is lost"
  quietly_compose rm --stop --force -v one
  docker volume rm "${COMPOSE_PROJECT_NAME}_one" >/dev/null
  ONE_FOLLOWS=http://other:3000 ONE_MUST_EXIST=false quietly_compose up -d
  until_role one standby
  for each in first second third fourth; do expect 409 add_widget "$each"; done
  unset ONE_MUST_EXIST OTHER_MUST_EXIST
  quietly_compose down --volumes
}
