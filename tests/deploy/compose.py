"""Renders the Compose files with docker-compose in every combination in their README, and checks the result.

    compose.py REPOSITORY
"""

import os
import pathlib
import re
import subprocess
import sys

import yaml

TOKENS = {"JWT_SECRET_FILE": "/dev/null"}
HTTPS = {"TLS_CERTIFICATE": "/dev/null", "TLS_KEY": "/dev/null"}
WAYS = [
    (["docker-compose.yml"], {}),
    (["docker-compose.embedded.yml"], {}),
    (["docker-compose.yml", "docker-compose.https.yml"], HTTPS),
    (["docker-compose.embedded.yml", "docker-compose.https.yml"], HTTPS),
    (["docker-compose.yml", "docker-compose.tokens.yml"], TOKENS),
    (["docker-compose.embedded.yml", "docker-compose.tokens.yml"], TOKENS),
    (["docker-compose.embedded.yml", "docker-compose.archive.yml"], {}),
    (["docker-compose.yml", "docker-compose.failover.yml"], {}),
    (["docker-compose.standby.yml"], {}),
]


def render(folder, files, variables):
    command = ["docker-compose", *(f"--file={name}" for name in files), "config"]
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    result = subprocess.run(command, cwd=folder, env=clean | variables, capture_output=True, text=True)
    assert result.returncode == 0, f"{files}: {result.stderr}"
    return yaml.safe_load(result.stdout)["services"]


def address(port):
    """Returns where a published port listens: docker-compose 1 writes texts, Compose v2 writes mappings."""
    if isinstance(port, dict):
        return port.get("host_ip", "")
    return port.rsplit(":", 2)[0] if port.count(":") > 1 else ""


def check_limits(way, services):
    for name, service in services.items():
        assert service.get("mem_limit"), f"{way}, {name}: no limit of memory"
        assert "cpus" in service, f"{way}, {name}: no limit of processors"
        for port in service.get("ports", []):
            assert address(port) == "127.0.0.1", f"{way}, {name}: {port} is open to other machines"


def check_settings(way, services, keys):
    for name, service in services.items():
        for variable in service.get("environment") or {}:
            known = variable in keys or not variable.startswith("WIDGETS_") or name == "loader"
            assert known, f"{way}, {name}: docs/configuration.md has no {variable}"


def check_archive(services):
    """Checks that all services reach the archive in the same way, with the one key that its server knows."""
    names = ["WIDGETS_ARCHIVE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT", "AWS_ALLOW_HTTP"]
    ways = [[services[each]["environment"][name] for name in names] for each in ("api", "archive-check", "archive-prune")]
    assert ways[0] == ways[1] == ways[2], ways
    server, way = services["s3"], dict(zip(names, ways[0]))
    assert [server["environment"]["KEY"], server["environment"]["SECRET"]] == ways[0][1:3], server["environment"]
    assert way["AWS_ENDPOINT"] == "http://s3:8333" and "-s3.port=8333" in server["command"][0], way
    assert way["WIDGETS_ARCHIVE_URL"].startswith("s3://widgets/") and "s3.bucket.create -name widgets'" in server["command"][0], way
    assert "ports" not in server, "the S3 server is open to other machines"
    assert [volume.split(":")[0] for volume in server["volumes"]] == ["archive"], server["volumes"]
    for name in ("archive-check", "archive-prune"):
        assert services[name]["profiles"], f"{name} starts with the service"
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"], services[name]
        # A store in a tmpfs would count as memory in addition to what a restore needs, and the service's own volume must
        # stay out of reach.
        assert not services[name].get("tmpfs") and not services[name].get("volumes"), services[name]


def check_failover(folder, services):
    """Checks that there are three nodes and three members of etcd, each with a separate volume, and that they know each
    other by the same names."""
    nodes, members = ["postgres", "postgres2", "postgres3"], ["etcd1", "etcd2", "etcd3"]
    patroni = yaml.safe_load((folder / "patroni/patroni.yml").read_text())
    assert patroni["etcd"]["hosts"] == [f"{each}:2379" for each in members], patroni["etcd"]
    assert patroni["bootstrap"]["dcs"]["synchronous_mode_strict"] is True, patroni["bootstrap"]
    volumes = [volume.split(":")[0] for each in nodes + members for volume in services[each]["volumes"] if "/data" in volume]
    assert len(volumes) == len(set(volumes)) == 6, volumes
    for each in nodes + members:
        assert services[each]["hostname"] == each and services[each]["image"] == "widgets-patroni", services[each]
        assert "ports" not in services[each], f"{each} is open to other machines"
    for each in nodes:
        assert patroni["postgresql"]["data_dir"].startswith("/var/lib/postgresql/data/"), patroni["postgresql"]
        assert any(":/var/lib/postgresql/data" in volume for volume in services[each]["volumes"]), services[each]
    for each in members:
        (command,) = services[each]["command"]
        assert "--enable-v2" in command and all(f"{member}=http://{member}:2380" in command for member in members), command
    for each in ("api", "migrate"):
        # The image has no shell; the password comes from the file that docker-compose.yml names.
        environment, command = services[each]["environment"], services[each].get("command", [])
        assert f"@{','.join(nodes)}/widgets" in environment["WIDGETS_STORE"], environment
        assert environment["WIDGETS_STORE_PASSWORD_FILE"].startswith("/secrets/"), environment
        assert command == ([] if each == "api" else [each]), command
    made = (folder / "postgres/make-passwords").read_text()
    for secret in re.findall(r"/secrets/(\w+)", (folder / "patroni/start").read_text() + (folder / "patroni/post-bootstrap").read_text()):
        assert f"make {secret} " in made, f"make-passwords does not make /secrets/{secret}"


def check_standby(services):
    """Checks that each of the two stores is found by the other and by HAProxy, and starts in its role."""
    proxy, one, other = services["haproxy"], services["one"], services["other"]
    known = [proxy["environment"][name] for name in ("API_ONE", "API_OTHER")]
    assert known == ["one:3000", "other:3000"], known
    assert one["environment"]["WIDGETS_FOLLOW"] == "", one["environment"]
    assert other["environment"]["WIDGETS_FOLLOW"] == "http://one:3000", other["environment"]
    volumes = [str(each["volumes"][0]) for each in (one, other)]
    assert volumes[0] != volumes[1], volumes
    for service in (one, other):
        assert "ports" not in service, "a store is open to other machines"


def check_postgres(folder, page):
    text = (folder / "postgres/postgresql.conf").read_text()
    for key in re.findall(r"\b(?:store|postgres|engine|http)\.[a-z_]+\b(?<!\.md)", text):
        section, _, name = key.partition(".")
        section = page.split(f"## `[{section}]`")[1].split("\n## ")[0]
        assert f"| `{name}` |" in section, f"postgresql.conf names {key}"
    for setting in ("wal_buffers", "wal_compression", "shared_buffers", "max_wal_size"):
        assert re.search(rf"^{setting} = ", text, re.MULTILINE), f"postgresql.conf lacks {setting}"


def main(repository):
    repository = pathlib.Path(repository)
    folder = repository / "deployments/docker-compose"
    page = (repository / "docs/configuration.md").read_text()
    keys = set(re.findall(r"`(WIDGETS_[A-Z0-9_]+)`", page))
    for files, variables in WAYS:
        services = render(folder, files, variables)
        check_limits(files, services)
        check_settings(files, services, keys)
        api = services.get("api") or services["one"]
        asked = api["environment"]["WIDGETS_ALLOW_PUBLIC_WITHOUT_AUTH"]
        assert asked == ("false" if variables is TOKENS else "true"), f"{files}: {asked}"
        if "docker-compose.failover.yml" in files:
            check_failover(folder, services)
        if "docker-compose.archive.yml" in files:
            check_archive(services)
        if "docker-compose.standby.yml" in files:
            check_standby(services)
        print(f"{' '.join(files)}: {', '.join(sorted(services))}")
    opened = render(folder, ["docker-compose.yml"], {"LISTEN_ADDRESS": "0.0.0.0"})
    assert address(opened["nginx"]["ports"][0]) == "0.0.0.0", opened["nginx"]
    assert address(opened["victoria-metrics"]["ports"][0]) == "127.0.0.1", opened["victoria-metrics"]
    for files, lacking in ((WAYS[2][0], "TLS_CERTIFICATE"), (WAYS[4][0], "JWT_SECRET_FILE")):
        try:
            render(folder, files, {})
        except AssertionError as error:
            assert lacking in str(error), error
        else:
            raise AssertionError(f"{files} needs no {lacking}")
    check_postgres(folder, page)


main(sys.argv[1])
