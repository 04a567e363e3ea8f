"""Runs the examples of the documents: every `console` block from top to bottom, and every program of the quickstarts, with a
new service for each page and each program. The output must be what the document says. WIDGETS_BINARY is the program,
WIDGETS_ROOT the repository."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

BINARY = os.environ["WIDGETS_BINARY"]
ROOT = pathlib.Path(os.environ["WIDGETS_ROOT"])
ADDRESS = "http://127.0.0.1:3000"


class Service:
    """A service on an empty store."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        command = [BINARY, "serve", "--listen", "127.0.0.1:0", "--data-dir", f"{self.folder.name}/data"]
        self.log = open(f"{self.folder.name}/log", "w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.process.stdout:
            if line.startswith("widgets listens on "):
                self.url = line.split()[-1]
                return self
        self.log.seek(0)
        raise AssertionError(f"the service did not start: {self.log.read()}")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.folder.cleanup()


def blocks(page, language):
    """Returns each block of this language, with the `text` block that follows it, if any."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    for (name, block), (after, output) in zip(fences, fences[1:] + [("", "")]):
        if name == language:
            yield block, output if after == "text" else None


class Documents(unittest.TestCase):
    maxDiff = None

    def test_console_blocks_print_the_documented_output(self):
        pages = [page for page in sorted(ROOT.glob("docs/**/*.md")) if next(blocks(page, "console"), None)]
        self.assertGreaterEqual(len(pages), 3)
        for page in pages:
            with self.subTest(page.name), Service() as service:
                for block, _ in blocks(page, "console"):
                    for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                        command, expected = example.split("\n", 1)
                        self.assertEqual(self.shell(command, service).strip(), expected.strip(), command)

    @staticmethod
    def shell(command, service):
        command = command.replace(ADDRESS, service.url)
        output = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True, check=True).stdout
        return re.sub(r"^(date|position|x-request-id): .*\n", "", output.replace("\r", ""), flags=re.MULTILINE)

    def program(self, language, suffix, command):
        ((program, expected),) = blocks(ROOT / "docs/quickstarts.md", language)
        with Service() as service:
            # The file must be in the folder with the packages that are installed for the tests.
            with tempfile.NamedTemporaryFile("w", dir=".", suffix=suffix) as file:
                file.write(program.replace(ADDRESS, service.url))
                file.flush()
                output = subprocess.run([*command, file.name], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertEqual(output, expected)

    def test_quickstart_in_javascript(self):
        self.program("js", ".mjs", ["node"])

    def test_quickstart_in_python(self):
        self.program("python", ".py", ["venv/bin/python"])

    def test_quickstart_in_rust(self):
        ((_, expected),) = [
            found for found in blocks(ROOT / "docs/quickstarts.md", "sh") if "widgets-client --example" in found[0]
        ]
        example = pathlib.Path(BINARY).parent / "examples/quickstart"
        with Service() as service:
            output = subprocess.run([example, service.url], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertEqual(output, expected)


if __name__ == "__main__":
    unittest.main()
