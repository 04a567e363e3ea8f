// Tests the unmodified postgrest-js against a running service at WIDGETS_URL.
import assert from "node:assert/strict";
import { test } from "node:test";
import { PostgrestClient, PostgrestError } from "@supabase/postgrest-js";

const url = process.env.WIDGETS_URL;
const client = new PostgrestClient(url);
const applied = { data: null, error: null, status: 204 };

async function check(answer, expected) {
  const { data, error, status } = await answer;
  const got = { data, error: error && { ...error }, status };
  // In some versions errors also have a name.
  if (got.error) delete got.error.name;
  assert.deepEqual(got, expected);
}

function refused(status, code, message, details = null, hint = null) {
  return { data: null, error: { code, details, hint, message }, status };
}

test("operations are applied", async () => {
  await check(client.rpc("add_widget", { widget_sn: "js1", widget_name: "A", slots: ["P", "R"] }), applied);
  await check(client.rpc("add_widget", { widget_sn: "js2", name: "B", slots: ["P", "R"] }), applied);
  const pair = { widget1_sn: "js1", widget2_sn: "js2", port: "P" };
  await check(client.rpc("associate_widgets", pair), applied);
  await check(client.rpc("remove_association", pair), applied);
  await check(client.rpc("remove_widget", { widget_sn: "js2" }), applied);
  await check(client.rpc("remove_widget", { widget_sn: "js1" }), applied);
});

test("refusals have their code and message", async () => {
  const add = (widget_sn, slots, widget_name = "A") => client.rpc("add_widget", { widget_sn, widget_name, slots });
  const pair = (widget1_sn, widget2_sn, port) => ({ widget1_sn, widget2_sn, port });
  await check(add("js3", ["P"]), applied);
  await check(add("js4", ["P", "Q"]), applied);
  await check(
    add("js3", []),
    refused(
      409,
      "23505",
      'duplicate key value violates unique constraint "widgets_serial_number_key"',
      "Key (serial_number)=(js3) already exists.",
    ),
  );
  await check(
    add("js5", ["Z"]),
    refused(400, "22P02", 'invalid input value for enum widgets.port_type: "Z"', 'argument "slots": the port types are P, Q, R'),
  );
  await check(add(5, []), refused(400, "22P02", 'argument "widget_sn" must be a string'));
  await check(add("js5", [], null), refused(400, "23502", 'null value in argument "widget_name" violates not-null constraint'));
  await check(add("js5", ["P", "P", "P", "P"]), refused(400, "WG006", "a widget has at most 3 slots, 4 were given"));
  await check(add("", []), refused(400, "WG007", "widget_sn must be at least 1 byte long, 0 were given"));
  const associate = (...names) => client.rpc("associate_widgets", pair(...names));
  const part = (...names) => client.rpc("remove_association", pair(...names));
  await check(associate("js3", "nobody", "P"), refused(404, "WG001", "Widget with serial number nobody does not exist"));
  await check(associate("js3", "js4", "Q"), refused(409, "WG002", "Widget with serial number js3 has no free slot of port Q"));
  await check(associate("js3", "js3", "P"), refused(400, "WG005", "Widget with serial number js3 cannot be associated with itself"));
  await check(part("js3", "js4", "P"), refused(404, "WG004", "Widgets with serial numbers js3 and js4 are not associated on port P"));
  await check(associate("js3", "js4", "P"), applied);
  await check(associate("js3", "js4", "P"), refused(409, "WG003", "Widgets with serial numbers js3 and js4 are already associated on port P"));
});

test("an unknown function gets a hint", async () => {
  await check(
    client.rpc("add_widgets", { widget_sn: "js5" }),
    refused(
      404,
      "PGRST202",
      "Could not find the function widgets.add_widgets(widget_sn) in the schema cache",
      "Searched for the function widgets.add_widgets with parameter widget_sn or with a single unnamed json/jsonb parameter, but no matches were found in the schema cache.",
      "Perhaps you meant to call the function widgets.add_widget",
    ),
  );
});

test("the profile selects the schema", async () => {
  for (const schema of ["public", "widgets"]) {
    const named = new PostgrestClient(url, { schema });
    const widget = { widget_sn: `js-${schema}`, widget_name: "", slots: [] };
    await check(named.rpc("add_widget", widget), applied);
    await check(client.schema(schema).rpc("remove_widget", { widget_sn: widget.widget_sn }), applied);
  }
  await check(
    client.schema("api").rpc("remove_widget", { widget_sn: "js3" }),
    refused(406, "PGRST106", "Invalid schema: api", null, "Only the following schemas are exposed: widgets, public"),
  );
});

test("the options count, single and select are accepted for operations", async () => {
  const add = (widget_sn, options) => client.rpc("add_widget", { widget_sn, widget_name: "", slots: [] }, options);
  const counted = await add("js6", { count: "exact" });
  assert.deepEqual([counted.status, counted.count, counted.error], [204, 1, null]);
  await check(add("js7").single(), applied);
  await check(add("js8").maybeSingle(), applied);
  await check(add("js9").select("*"), applied);
});

test("operations by GET or HEAD are refused", async () => {
  const widget = { widget_sn: "js10", widget_name: "", slots: ["P"] };
  await check(
    client.rpc("add_widget", widget, { get: true }),
    refused(405, "25006", "cannot execute INSERT in a read-only transaction"),
  );
  const head = await client.rpc("add_widget", widget, { head: true });
  assert.equal(head.status, 405);
  await check(client.rpc("remove_widget", { widget_sn: "js10" }), refused(404, "WG001", "Widget with serial number js10 does not exist"));
});

test("throwOnError throws the error of the response", async () => {
  const call = async () => await client.rpc("remove_widget", { widget_sn: "nobody" }).throwOnError();
  await assert.rejects(call, (error) => error instanceof PostgrestError && error.code === "WG001");
});

test("lists are read as tables", async () => {
  const add = (widget_sn, widget_name, slots) => client.rpc("add_widget", { widget_sn, widget_name, slots });
  await check(add("list-a", "red, one", ["P", "R"]), applied);
  await check(add("list-b", "blue", ["P"]), applied);
  await check(add("list-c", "blue", []), applied);
  await check(client.rpc("associate_widgets", { widget1_sn: "list-a", widget2_sn: "list-b", port: "P" }), applied);
  const widgets = (columns, options) => client.from("widgets").select(columns, options).like("serial_number", "list-%");
  const rows = async (query, expected, status = 200) => {
    const answer = await query;
    assert.deepEqual([answer.error, answer.status, answer.data], [null, status, expected]);
  };
  const a = { serial_number: "list-a" };
  const b = { serial_number: "list-b" };
  const c = { serial_number: "list-c" };
  await rows(widgets("serial_number"), [a, b, c]);
  await rows(widgets("serial_number").order("serial_number", { ascending: false }), [c, b, a]);
  await rows(widgets("serial_number").range(1, 2), [b, c]);
  await rows(widgets("sn:serial_number,name").eq("name", "blue").limit(1), [{ sn: "list-b", name: "blue" }]);
  await rows(widgets("serial_number").in("name", ["red, one", "green"]), [a]);
  await rows(widgets("serial_number").or("name.like.r*,serial_number.eq.list-c"), [a, c]);
  await rows(widgets("serial_number").not("name", "eq", "blue"), [a]);
  await rows(widgets("serial_number").gt("serial_number", "list-a").lt("serial_number", "list-c"), [b]);
  const contains = (slots) => widgets("serial_number").contains("slots", JSON.stringify(slots));
  await rows(contains([{ port: "R", peer: null }]), [a]);
  await rows(contains([{ peer: "list-a" }]), [b]);
  await rows(widgets("*").eq("serial_number", "list-b").single(), {
    serial_number: "list-b",
    name: "blue",
    slots: [{ port: "P", peer: "list-a" }],
  });
  await rows(widgets("*").eq("serial_number", "nobody").maybeSingle(), null);
  const single = await widgets("*").single();
  assert.deepEqual([single.status, single.error.code, single.error.details], [406, "PGRST116", "The result contains 3 rows"]);
  const counted = await widgets("*", { count: "exact", head: true });
  assert.deepEqual([counted.error, counted.count, counted.data], [null, 3, null]);
  const part = await widgets("serial_number", { count: "exact" }).limit(1);
  assert.deepEqual([part.status, part.count, part.data], [206, 3, [a]]);
  await rows(widgets("serial_number,name").csv(), 'serial_number,name\nlist-a,"red, one"\nlist-b,blue\nlist-c,blue');
  const free = client.from("slots").select("widget_sn,ordinal").like("widget_sn", "list-%").is("peer_sn", null);
  await rows(free, [{ widget_sn: "list-a", ordinal: 2 }]);
  const unknown = await client.from("widgets").select("colour");
  assert.deepEqual([unknown.status, unknown.error.code], [400, "42703"]);
});
