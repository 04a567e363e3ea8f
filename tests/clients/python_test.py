"""Tests the unmodified postgrest (Python) against a running service at WIDGETS_URL, and the service's API document."""

import json
import os
import unittest
import urllib.request

from openapi_spec_validator import validate
from postgrest import APIError, SyncPostgrestClient

URL = os.environ["WIDGETS_URL"]


def pair(widget1_sn, widget2_sn, port):
    return {"widget1_sn": widget1_sn, "widget2_sn": widget2_sn, "port": port}


def widget(widget_sn, slots=(), widget_name="A"):
    return {"widget_sn": widget_sn, "widget_name": widget_name, "slots": list(slots)}


class Client(unittest.TestCase):
    def setUp(self):
        # Sends `Accept-Profile: public` and `Content-Profile: public` with each request.
        self.client = SyncPostgrestClient(URL)
        self.addCleanup(self.client.session.close)

    def applied(self, function, arguments, **options):
        answer = self.client.rpc(function, arguments, **options).execute()
        self.assertEqual(answer.data, [])
        return answer

    def refused(self, function, arguments, code, message, details=None, hint=None, **options):
        with self.assertRaises(APIError) as caught:
            self.client.rpc(function, arguments, **options).execute()
        error = caught.exception
        got = (error.code, error.message, error.details, error.hint)
        self.assertEqual(got, (code, message, details, hint))

    def test_operations_are_applied(self):
        self.applied("add_widget", widget("py1", ["P", "R"]))
        self.applied("add_widget", {"widget_sn": "py2", "name": "B", "slots": ["P"]})
        self.applied("associate_widgets", pair("py1", "py2", "P"))
        self.applied("remove_association", pair("py2", "py1", "P"))
        self.applied("remove_widget", {"widget_sn": "py1"})
        self.applied("remove_widget", {"widget_sn": "py2"})

    def test_refusals_have_their_code_and_message(self):
        self.applied("add_widget", widget("py3", ["P"]))
        self.applied("add_widget", widget("py4", ["P", "Q"]))
        self.refused(
            "add_widget",
            widget("py3"),
            "23505",
            'duplicate key value violates unique constraint "widgets_serial_number_key"',
            "Key (serial_number)=(py3) already exists.",
        )
        self.refused(
            "add_widget",
            widget("py5", ["z"]),
            "22P02",
            'invalid input value for enum widgets.port_type: "z"',
            'argument "slots": the port types are P, Q, R',
        )
        cases = [
            ("add_widget", widget(5), "22P02", 'argument "widget_sn" must be a string'),
            ("add_widget", widget("py5", [], None), "23502", 'null value in argument "widget_name" violates not-null constraint'),
            ("add_widget", widget("py5", "PPPP"), "WG006", "a widget has at most 3 slots, 4 were given"),
            ("add_widget", widget("p" * 256), "WG007", "widget_sn must be at most 255 bytes long, 256 were given"),
            ("remove_widget", {"widget_sn": "nobody"}, "WG001", "Widget with serial number nobody does not exist"),
            ("associate_widgets", pair("py4", "py3", "Q"), "WG002", "Widget with serial number py3 has no free slot of port Q"),
            ("associate_widgets", pair("py3", "py3", "P"), "WG005", "Widget with serial number py3 cannot be associated with itself"),
            ("remove_association", pair("py3", "py4", "P"), "WG004", "Widgets with serial numbers py3 and py4 are not associated on port P"),
        ]
        for function, arguments, code, message in cases:
            with self.subTest(code=code):
                self.refused(function, arguments, code, message)
        self.applied("associate_widgets", pair("py3", "py4", "P"))
        self.refused(
            "associate_widgets",
            pair("py3", "py4", "P"),
            "WG003",
            "Widgets with serial numbers py3 and py4 are already associated on port P",
        )

    def test_an_unknown_function_gets_a_hint(self):
        self.refused(
            "add_widget",
            {"widget_sn": "py5", "slots": []},
            "PGRST202",
            "Could not find the function widgets.add_widget(slots, widget_sn) in the schema cache",
            "Searched for the function widgets.add_widget with parameters slots, widget_sn or with a single"
            " unnamed json/jsonb parameter, but no matches were found in the schema cache.",
            "Perhaps you meant to call the function widgets.add_widget(slots, widget_name, widget_sn)",
        )

    def test_the_profile_selects_the_schema(self):
        self.client.schema("widgets").rpc("add_widget", widget("py6")).execute()
        with self.assertRaises(APIError) as caught:
            self.client.schema("api").rpc("add_widget", widget("py7")).execute()
        self.assertEqual(caught.exception.code, "PGRST106")

    def test_the_count_option_is_accepted(self):
        answer = self.applied("add_widget", widget("py8"), count="exact")
        self.assertEqual(answer.count, 1)

    def test_operations_by_get_or_head_are_refused(self):
        message = "cannot execute INSERT in a read-only transaction"
        self.refused("add_widget", widget("py9", ["P"]), "25006", message, get=True)
        with self.assertRaises(APIError) as caught:
            self.client.rpc("add_widget", widget("py9", ["P"]), head=True).execute()
        self.assertEqual(caught.exception.code, "25006", "from Proxy-Status")
        self.refused("remove_widget", {"widget_sn": "py9"}, "WG001", "Widget with serial number py9 does not exist")


    def test_lists_are_read_as_tables(self):
        self.applied("add_widget", widget("pylist-a", ["P", "R"], "red"))
        self.applied("add_widget", widget("pylist-b", ["P"], "blue"))
        self.applied("add_widget", widget("pylist-c", [], "blue"))
        self.applied("associate_widgets", pair("pylist-a", "pylist-b", "P"))

        def widgets(*columns, **options):
            return self.client.table("widgets").select(*columns, **options).like("serial_number", "pylist-%")

        def names(query):
            return [row["serial_number"][-1] for row in query.execute().data]

        self.assertEqual(names(widgets("*")), ["a", "b", "c"])
        self.assertEqual(names(widgets("*").order("serial_number", desc=True)), ["c", "b", "a"])
        self.assertEqual(names(widgets("*").range(1, 1)), ["b"])
        self.assertEqual(names(widgets("*").eq("name", "blue")), ["b", "c"])
        self.assertEqual(names(widgets("*").in_("name", ["red", "green"])), ["a"])
        self.assertEqual(names(widgets("*").or_("name.eq.red,serial_number.eq.pylist-c")), ["a", "c"])
        self.assertEqual(names(widgets("*").contains("slots", json.dumps([{"port": "R", "peer": None}]))), ["a"])
        counted = widgets("serial_number", count="exact").limit(1).execute()
        self.assertEqual((counted.count, len(counted.data)), (3, 1))
        one = widgets("name", "slots").eq("serial_number", "pylist-b").single().execute().data
        self.assertEqual(one, {"name": "blue", "slots": [{"port": "P", "peer": "pylist-a"}]})
        self.assertIsNone(widgets("*").eq("serial_number", "nobody").maybe_single().execute())
        csv = widgets("serial_number", "name").limit(1).csv().execute().data
        self.assertEqual(csv, "serial_number,name\npylist-a,red")
        free = self.client.table("slots").select("ordinal").eq("widget_sn", "pylist-a").is_("peer_sn", "null")
        self.assertEqual(free.execute().data, [{"ordinal": 2}])
        with self.assertRaises(APIError) as caught:
            self.client.table("widgets").select("colour").execute()
        self.assertEqual(caught.exception.code, "42703")


class Document(unittest.TestCase):
    def test_the_document_is_valid_open_api(self):
        request = urllib.request.Request(URL, headers={"Accept": "application/openapi+json"})
        with urllib.request.urlopen(request) as answer:
            document = json.load(answer)
        self.assertTrue(document["openapi"].startswith("3.1."))
        validate(document)


if __name__ == "__main__":
    unittest.main()
