#!/usr/bin/env python3
"""Follows the instructions for pgBackRest in docs/operations.md word for word: backs up the PostgreSQL store to an S3
server (SeaweedFS, with TLS) during writes, deletes its data directory, and restores it to a second and to the newest
moment.

    target/archive/bin/python tests/archive/pgbackrest.py target/debug/widgets

Needs Debian's PostgreSQL 15 and pgBackRest, and openssl. The service runs throughout. Exits with 1 at the first failure.
"""

import datetime
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from service import S3, Service, Writers, check, free_port

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
POSTGRES = "/usr/lib/postgresql/15/bin"


def section():
    text = (REPOSITORY / "docs/operations.md").read_text()
    return text.split("**By pgBackRest,")[1].split("\n## ")[0]


def block(text, first):
    """Returns the lines of the indented block that begins with this line."""
    lines = text.split(first, 1)[1].splitlines()
    found = [first]
    for line in lines[1:]:
        if line and not line.startswith("       "):
            break
        found.append(line.strip())
    return "\n".join(found)


def as_postgres():
    """Returns the prefix with which a command runs as postgres, because PostgreSQL refuses to run as root."""
    if os.getuid() == 0:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
    return []


class SecureS3(S3):
    """The S3 server with TLS, whose certificate comes from the test's own authority."""

    def start(self):
        self.ca = os.path.join(self.folder, "ca.pem")
        key, certificate, request = (os.path.join(self.folder, name) for name in ("key.pem", "certificate.pem", "request.pem"))
        if not os.path.exists(self.ca):
            extension = os.path.join(self.folder, "extension")
            with open(extension, "w") as file:
                file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            for command in (
                ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-keyout", key + ".ca", "-out", self.ca],
                ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", request],
                ["x509", "-req", "-days", "2", "-in", request, "-CA", self.ca, "-CAkey", key + ".ca", "-CAcreateserial", "-extfile", extension,
                 "-out", certificate],
            ):
                subprocess.run(["openssl", *command], check=True, capture_output=True)
        self.more = [f"-s3.cert.file={certificate}", f"-s3.key.file={key}"]
        super().start()


class Database:
    def __init__(self, folder, s3):
        self.folder, self.port = folder, free_port()
        self.data = folder / "data"
        self.configuration = folder / "pgbackrest.conf"
        text = section()
        configuration = block(text, "[global]")
        for line, value in {"repo1-s3-endpoint": f"localhost:{s3.ports[3]}", "repo1-s3-key": "writer", "repo1-s3-key-secret": "secretsecret",
                            "repo1-storage-ca-file": folder / "ca.pem", "pg1-path": self.data}.items():
            configuration, count = re.subn(rf"^{line}=.*$", f"{line}={value}", configuration, flags=re.MULTILINE)
            check(count == 1, f"/etc/pgbackrest.conf in docs/operations.md has {line}")
        configuration += f"\npg1-port={self.port}\npg1-socket-path={folder}\n"
        for name in ("log", "lock", "spool"):
            (folder / name).mkdir()
        paths = f"[global]\nlog-path={folder}/log\nlock-path={folder}/lock\nspool-path={folder}/spool\nlog-level-console=warn\n"
        self.configuration.write_text(configuration.replace("[global]\n", paths, 1))
        shutil.copy(s3.ca, folder / "ca.pem")
        self.settings = [line for line in block(text, "archive_mode = on").splitlines() if line]
        self.environment = os.environ | {"PGBACKREST_CONFIG": str(self.configuration)}
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "postgres:postgres", str(folder)], check=True)
        self.run(f"{POSTGRES}/initdb", "-D", str(self.data), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        with open(self.data / "postgresql.conf", "a") as file:
            file.write("\n".join([*self.settings, f"port = {self.port}", f"unix_socket_directories = '{folder}'", "shared_buffers = 64MB", ""]))
        self.process = None

    def run(self, *command):
        done = subprocess.run([*as_postgres(), *command], env=self.environment, cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"FAILED: {' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        log = open(self.folder / "log" / "postgres", "ab")
        self.process = subprocess.Popen([*as_postgres(), f"{POSTGRES}/postgres", "-D", str(self.data)], env=self.environment, stdout=log, stderr=log)
        until = time.time() + 120
        # The server answers reads during recovery; it accepts writes only after recovery has ended.
        while self.sql("SELECT pg_is_in_recovery()", may_fail=True) != "f":
            if time.time() > until or self.process.poll() is not None:
                raise SystemExit(f"FAILED: PostgreSQL does not start: {(self.folder / 'log/postgres').read_text()[-3000:]}")
            time.sleep(0.1)

    def kill_and_erase(self):
        """Kills the server and deletes its disk."""
        children = subprocess.run(["pgrep", "--parent", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        for pid in [self.process.pid, *map(int, children)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        shutil.rmtree(self.data)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)

    def sql(self, sql, database="postgres", may_fail=False):
        command = [f"{POSTGRES}/psql", "-XqAt", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-c", sql]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0 and not may_fail:
            raise SystemExit(f"FAILED: {sql}: {done.stderr}")
        return done.stdout.strip()

    def commands(self):
        """Returns the commands on the page, in order."""
        return re.findall(r"^ {7}(pgbackrest .*)$", section(), re.MULTILINE)

    def pgbackrest(self, command, **names):
        for name, value in names.items():
            command, count = re.subn(rf'--{name}="[^"]*"', f'--{name}="{value}"', command)
            check(count == 1, f"{command} has --{name}")
        told = self.run(*shlex.split(command))
        print(f"ok: {command}", flush=True)
        return told


class OnPostgres(Service):
    def __init__(self, binary, folder, url):
        super().__init__(binary, str(folder / "service"), None)
        self.url = url

    def start(self, environment=None):
        command = [self.binary, "serve", "--store", self.url, "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, stdout=open(self.errors, "ab"), stderr=subprocess.STDOUT)
        self.wait_until_ready()
        return self

    def wait_until_ready(self):
        """Waits for operations, and for lists, which have their own connections."""
        until = time.time() + 60
        while True:
            try:
                if self.get("/ready")[0] == 200 and self.get("/widgets?limit=1")[0] == 200:
                    return
            except OSError:
                pass
            if time.time() > until or self.process.poll() is not None:
                raise SystemExit(f"FAILED: the service is not ready: {open(self.errors).read()[-2000:]}")
            time.sleep(0.05)


def write(service, name, seconds=1.5):
    writers = Writers(service, 4, name)
    time.sleep(seconds)
    writers.stop()
    return set(writers.answered)


def run(binary, folder, s3):
    database = Database(folder, s3)
    database.start()
    database.sql("CREATE DATABASE registry")
    url = f"@127.0.0.1:{database.port}/registry"
    subprocess.run([binary, "migrate", "--store", f"postgres://postgres{url}"], check=True, capture_output=True)
    service = OnPostgres(binary, folder, f"postgres://authenticator{url}").start()
    try:
        drill(database, service)
    finally:
        service.kill()
        database.stop()


def drill(database, service):
    create, check_stanza, full, difference, info, to_moment, to_newest = database.commands()
    database.pgbackrest(create)
    database.pgbackrest(check_stanza)
    writers = Writers(service, 4, "during")
    database.pgbackrest(full)
    writers.stop()
    before = set(writers.answered) | write(service, "a")
    database.pgbackrest(difference)
    before |= write(service, "b")
    check("diff backup" in database.pgbackrest(info), "it lists both backups")
    time.sleep(1.1)
    moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S+00")
    time.sleep(1.1)
    after = write(service, "c")
    # archive_timeout would do this within a minute.
    switched = database.sql("SELECT pg_walfile_name(pg_switch_wal())")
    until = time.time() + 60
    while database.sql("SELECT last_archived_wal FROM pg_stat_archiver") < switched:
        if time.time() > until:
            raise SystemExit("FAILED: the last segment is not archived")
        time.sleep(0.1)
    pid = service.process.pid
    for command, names, there, gone in (
        (to_moment, {"target": moment}, before, after),
        (to_newest, {}, before, None),
    ):
        database.kill_and_erase()
        database.pgbackrest(command, **names)
        database.start()
        service.wait_until_ready()
        found = service.serial_numbers()
        check(there <= found, f"all {len(there)} widgets acknowledged before are present")
        if gone is not None:
            check(not gone & found, f"none of the {len(gone)} widgets added later is present")
            # The new timeline must be archived and backed up as well.
            more = write(service, "d")
            check(len(more) > 10, "the same service continues to accept writes")
            database.pgbackrest(full)
            before |= more
    check(service.process.poll() is None and service.process.pid == pid, "the service was never restarted")
    check("secretsecret" not in open(service.errors).read(), "no credential was logged")


def main():
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        s3 = SecureS3(str(folder / "s3"))
        s3.start()
        try:
            s3.make_bucket(None, "widgets")
            (folder / "database").mkdir()
            run(binary, folder / "database", s3)
        finally:
            s3.stop()


main()
