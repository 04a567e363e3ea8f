# Functions of ./run and the other scripts here, which source this file.
# shellcheck shell=bash disable=SC2154

figures=()

say() {
  echo "== $*" >&2
}

fail() {
  echo "tests/deploy/run: $*" >&2
  exit 1
}

figure() {
  figures+=("$1: $2")
}

print_figures() {
  printf '%s\n' "${figures[@]}"
}

# Runs a command and puts the seconds that it took into the named variable.
timed() {
  local variable=$1 start=$EPOCHREALTIME
  shift
  "$@"
  printf -v "$variable" '%.1f' "$(bc <<<"$EPOCHREALTIME - $start")"
}

start_engine() {
  "$root/tests/install" bc:bc dockerd:docker.io iptables:iptables mmdebstrap:mmdebstrap
  say "starting a Docker Engine in $work"
  export DOCKER_HOST=unix://$work/docker.sock
  dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" \
    --host "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
  engine_pid=$!
  for _ in {1..100}; do
    docker info >/dev/null 2>&1 && return
    kill -0 "$engine_pid" 2>/dev/null || break
    sleep 0.2
  done
  engine_pid=
  fail "the Docker Engine did not start: $(tail -5 "$work/dockerd.log")"
}

# Ends the Engine if start_engine started one.
stop_engine() {
  [[ -n $engine_pid ]] || return 0
  kill "$engine_pid" 2>/dev/null
  while kill -0 "$engine_pid" 2>/dev/null; do sleep 0.2; done
  # Unmount what the Engine may have left mounted, so that removing the folder does not delete through a mount.
  awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r |
    xargs --no-run-if-empty umount
}

# Removes all containers, networks and volumes of the project, whichever files made them.
remove_project() {
  docker info >/dev/null 2>&1 || return
  local of=(--filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")
  docker ps --all --quiet "${of[@]}" | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  docker network ls --quiet "${of[@]}" | xargs --no-run-if-empty docker network rm >/dev/null
  docker volume ls --quiet "${of[@]}" | xargs --no-run-if-empty docker volume rm >/dev/null
}

# Makes the image from an existing binary with the last stage of the Dockerfile. If the binary is not static (like those of
# `cargo build`), adds its libraries.
image_of() {
  local binary=$1 image=$work/image/files library
  mkdir -p "$image/data" "$image/etc/ssl/certs" "$image/usr/local/bin"
  cp "$binary" "$image/usr/local/bin/widgets"
  for library in $(ldd "$binary" 2>/dev/null | grep -o '/[^ ]*' || true); do
    mkdir -p "$image$(dirname "$library")"
    cp --dereference "$library" "$image$library"
  done
  cp /etc/ssl/certs/ca-certificates.crt "$image/etc/ssl/certs/"
  echo 'widgets:x:10001:10001::/data:' >"$image/etc/passwd"
  echo 'widgets:x:10001:' >"$image/etc/group"
  chown 10001:10001 "$image/data"
  tar --create --file "$work/image/files.tar" --directory "$image" .
  { echo 'FROM scratch'; sed '1,/^FROM scratch/d; s|^COPY --from=build /image /|ADD files.tar /|' "$root/Dockerfile"; } \
    >"$work/image/Dockerfile"
  rm -r "$image"
  docker build --quiet --tag widgets "$work/image" >/dev/null
}

# Prints every image that the Dockerfile and the compose files name, without the compiler's image if there is a binary.
images() {
  sed -n 's/^FROM \([^ ]*\).*/\1/p' "$root/Dockerfile" | grep -v '^scratch$' | if [[ -n $binary ]]; then grep -v '^rust:'; else cat; fi
  local files=("$root"/deployments/docker-compose/docker-compose*.yml)
  [[ ${part:-} != disk-dies ]] || files=("$root"/deployments/docker-compose/docker-compose.{embedded,archive}.yml)
  [[ ${part:-} != standby ]] || files=("$root"/deployments/docker-compose/docker-compose.standby.yml)
  if [[ ${part:-} == failover ]]; then
    files=("$root"/deployments/docker-compose/docker-compose.yml)
    sed -n 's/^FROM //p' "$root/deployments/docker-compose/patroni/Dockerfile"
  fi
  sed -n 's/^ *image: //p' "${files[@]}" | grep -v -e '^widgets$' -e '^widgets-patroni$'
}

# Pulls each missing image or makes a stand-in for it. Sets `made` to the stand-ins.
provide_images() {
  made=
  local image
  for image in $(images | sort -u); do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    if docker pull --quiet "$image" 2>"$work/pull.log"; then
      continue
    fi
    [[ -n $engine_pid ]] || fail "$image cannot be pulled: $(cat "$work/pull.log")"
    "$here/stand-ins/build" "$image" 2>"$work/stand-ins.log" || fail "$(cat "$work/stand-ins.log")"
    made+=" $image"
  done
}

status() {
  curl --silent --output /dev/null --write-out '%{http_code}' "$@" || true
}

# Sends the README's request with this serial number and prints the status.
add_widget() {
  local serial_number=$1 url=${2:-http://localhost}
  shift $(($# < 2 ? $# : 2))
  status "$@" "$url/rpc/add_widget" --header 'Content-Type: application/json' \
    --data "{\"widget_sn\": \"$serial_number\", \"widget_name\": \"A\", \"slots\": [\"P\", \"R\", \"R\"]}"
}

expect() {
  local wanted=$1 got
  shift
  got=$("$@")
  [[ $got == "$wanted" ]] || fail "$* gives $got, not $wanted"
}

# Prints the value of a PromQL expression, or 0 if it has none.
query() {
  curl --fail --silent http://localhost:8428/api/v1/query --data-urlencode "query=$1" |
    jq --raw-output '.data.result[0].value[1] // "0"'
}

# Runs the load generator in its container with an audit of everything.
load() {
  local name=$1 rate=$2 duration=$3
  shift 3
  mkdir -p "$work/reports"
  chmod 755 "$work"
  chmod 777 "$work/reports"
  compose run --rm -T --no-deps --volume "$work/reports:/reports" loader \
    load http://nginx --rate "$rate" --duration "$duration" --audit all --json "/reports/$name.json" \
    "$@" >"$work/reports/$name.txt" 2>&1
}

# Records the figures of a run of `load`.
report() {
  local name=$1 what=$2
  figure "$what, under load" "$(jq --raw-output '.stretches[0] as $s | .audit as $a |
    "\($s.requests) requests at \($s.requests_per_second | round)/s, \($s.errors) failed (\($s.errors / $s.requests * 10000 | round / 100) %), \($s.wrong) wrong answers, p50 \($s.latency.p50_us / 10 | round / 100) ms, p99 \($s.latency.p99_us / 10 | round / 100) ms; audit: \($a.widgets_checked) widgets read back, \($a.acknowledged_but_lost) acknowledged operations lost"' \
    "$work/reports/$name.json")"
}

# Prints how long after `start` each replica except the old one answered a request of the load for the first time.
serving() {
  local wanted=$1 old=$2 start=$3 deadline=$((SECONDS + 60)) container address served=()
  local found=" $old "
  while ((${#served[@]} < wanted - 1)); do
    ((SECONDS < deadline)) || fail "after 60 s only ${#served[@]} new replicas serve"
    for container in $(docker ps --quiet --no-trunc --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter label=com.docker.compose.service=api); do
      [[ $found == *" $container "* ]] && continue
      address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$container")
      [[ -n $address ]] || continue
      # Asked from the load balancer's container, because replicas can be reached only in its network.
      if compose exec -T nginx curl --silent --max-time 1 "http://$address:3000/metrics" 2>/dev/null |
        grep -q '^widgets_request_duration_seconds_count{operation="add_widget",outcome="ok"} [1-9]'; then
        served+=("$(bc <<<"scale=1; ($(date +%s.%N) - $start) / 1") s")
        found+="$container "
      fi
    done
    sleep 0.2
  done
  local IFS=,
  echo "${served[*]}"
}

# Makes an authority that is valid for a day, and its certificate for localhost.
make_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 \
    -subj '/CN=throwaway authority' -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=localhost' \
    -keyout "$work/key.pem" -out "$work/request.pem" 2>/dev/null
  openssl x509 -req -in "$work/request.pem" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial \
    -days 1 -extfile <(echo 'subjectAltName=DNS:localhost') -out "$work/certificate.pem" 2>/dev/null
}

free_port() {
  local port
  for port in {20443..20543}; do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  fail "no free port"
}

# Starts a bare Debian with systemd in a container, and sets `container`.
start_systemd() {
  local image=widgets-test-systemd:bookworm
  if ! docker image inspect "$image" >/dev/null 2>&1; then
    say "making a Debian with systemd"
    mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io \
      --include=systemd,systemd-sysv,procps,adduser,ca-certificates,curl bookworm "$work/systemd.tar"
    docker import - "$image" <"$work/systemd.tar" >/dev/null
    rm "$work/systemd.tar"
  fi
  cat >"$work/start" <<'START'
#!/bin/sh
# Mounts separate control groups: version 2, or version 1 if the machine uses that.
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup || {
  mount -t tmpfs none /sys/fs/cgroup
  mkdir /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd none /sys/fs/cgroup/systemd
}
exec env container=docker /lib/systemd/systemd --system
START
  chmod 755 "$work" "$work/start"
  container=$(docker run --detach --cap-add SYS_ADMIN --cap-add NET_ADMIN \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
    --tmpfs /run --tmpfs /tmp --volume "$work/start:/start:ro" "$image" /start)
  booted
}

inside() {
  docker exec "$container" "$@"
}

# Waits until the container's systemd has finished booting.
booted() {
  for _ in {1..300}; do
    [[ $(inside systemctl is-system-running 2>/dev/null) =~ running|degraded ]] && return
    sleep 0.1
  done
  fail "systemd does not come up: $(docker logs "$container" 2>&1 | tail -5)"
}

property() {
  inside systemctl show --property "$1" --value widgets
}

# Waits until a property of the service has a value.
until_is() {
  for _ in {1..600}; do
    [[ $(property "$1") == "$2" ]] && return
    sleep 0.1
  done
  fail "$1 is $(property "$1"), not $2: $(inside journalctl --no-pager --unit widgets | tail -20)"
}
