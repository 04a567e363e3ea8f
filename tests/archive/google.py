"""A stand-in for Google Cloud Storage, because no emulator in the registries has the XML API with conditions, which
`object_store` uses.

It follows Google's documentation of that API strictly, but implements only what the archive needs: objects with
generations, `x-goog-if-generation-match` on writes, lists in small pages, a bearer token, and the refusal of more than
one write a second to one name (429). It cannot show how Google's service behaves where the documentation says nothing.

    https://cloud.google.com/storage/docs/xml-api/overview
    https://cloud.google.com/storage/quotas#objects
"""

import email.utils
import hashlib
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

PAGE = 7
TOKEN = "ya29.a-token-of-the-tests"


class Object:
    def __init__(self, content, generation):
        self.content, self.generation, self.written = content, generation, time.time()
        self.etag = f'"{hashlib.md5(content).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    google = None

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.google.statuses[status] = self.google.statuses.get(status, 0) + 1
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code):
        self.answer(status, f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode(),
                    [("Content-Type", "application/xml; charset=UTF-8")])

    def handle_any(self):
        content = b""
        if self.command == "PUT":
            if self.headers.get("Content-Length") is None:
                return self.refuse(411, "MissingContentLength")
            content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "AuthenticationRequired")
        if self.google.is_refusing:
            return self.refuse(403, "AccessDenied")
        path, _, query = self.path.partition("?")
        bucket, _, name = urllib.parse.unquote(path[1:]).partition("/")
        if bucket != self.google.bucket:
            return self.refuse(404, "NoSuchBucket")
        with self.google.lock:
            if not name:
                return self.list(dict(urllib.parse.parse_qsl(query, keep_blank_values=True)))
            return {"PUT": self.put, "GET": self.get, "HEAD": self.get, "DELETE": self.delete}[self.command](name, content)

    do_GET = do_HEAD = do_PUT = do_DELETE = handle_any

    def put(self, name, content):
        # Google does not support S3's conditions, so a client that relies on them must get an error.
        if self.headers.get("If-None-Match") or self.headers.get("If-Match"):
            return self.refuse(400, "InvalidArgument")
        objects, before = self.google.objects, self.google.objects.get(name)
        # Checked first, because the documentation does not say that a write which fails its condition is not counted.
        if before and time.time() - before.written < self.google.seconds_between:
            return self.refuse(429, "SlowDown")
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != (before.generation if before else 0):
            return self.refuse(412, "PreconditionFailed")
        self.google.generation += 1
        made = objects[name] = Object(content, self.google.generation)
        self.google.written[name] = self.google.written.get(name, 0) + 1
        self.answer(200, headers=[("ETag", made.etag), ("x-goog-generation", str(made.generation)), ("x-goog-metageneration", "1")])

    def get(self, name, _):
        found = self.google.objects.get(name)
        if not found:
            return self.refuse(404, "NoSuchKey")
        self.answer(200, found.content, [
            ("ETag", found.etag), ("x-goog-generation", str(found.generation)), ("x-goog-metageneration", "1"),
            ("Last-Modified", email.utils.formatdate(found.written, usegmt=True)), ("Content-Type", "application/octet-stream")])

    def delete(self, name, _):
        if not self.google.objects.pop(name, None):
            return self.refuse(404, "NoSuchKey")
        self.answer(204)

    def list(self, query):
        if query.get("list-type") != "2" or query.get("delimiter"):
            return self.refuse(400, "InvalidArgument")
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        names = sorted(name for name in self.google.objects if name.startswith(query.get("prefix", "")) and name > after)
        more = f"<NextContinuationToken>{escape(names[PAGE - 1])}</NextContinuationToken>" if len(names) > PAGE else ""
        entries = "".join(self.entry(name) for name in names[:PAGE])
        text = (f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>"
                f"<Name>{self.google.bucket}</Name><Prefix>{escape(query.get('prefix', ''))}</Prefix>"
                f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{entries}</ListBucketResult>")
        self.answer(200, text.encode(), [("Content-Type", "application/xml; charset=UTF-8")])

    def entry(self, name):
        found = self.google.objects[name]
        written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(found.written)) + f".{int(found.written % 1 * 1000):03}Z"
        return (f"<Contents><Key>{escape(name)}</Key><Generation>{found.generation}</Generation><MetaGeneration>1</MetaGeneration>"
                f"<LastModified>{written}</LastModified><ETag>{escape(found.etag)}</ETag><Size>{len(found.content)}</Size></Contents>")


class Google:
    """One bucket in memory."""

    def __init__(self, bucket, seconds_between=1.0):
        self.bucket, self.seconds_between, self.is_refusing = bucket, seconds_between, False
        self.objects, self.generation, self.statuses, self.written = {}, 1700000000000000, {}, {}
        self.lock = threading.Lock()
        handler = type("Handler", (Handler,), {"google": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def variables(self, token=TOKEN):
        return {"GOOGLE_BASE_URL": f"http://127.0.0.1:{self.server.server_port}", "GOOGLE_BEARER_TOKEN": token}

    def writes(self, name):
        """Returns how often objects with this name were written, in all archives together."""
        return sum(times for each, times in self.written.items() if each.endswith("/" + name))

    def terminate(self):
        self.server.shutdown()

    def wait(self):
        self.server.server_close()
