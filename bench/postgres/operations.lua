-- The same operations as pgbench/*.sql, over HTTP:
--   wrk … -s operations.lua ADDRESS -- OPERATION START WIDGETS REMOVED
-- START is the first number of the run; REMOVED is the first number of the widgets that a mix removes.
-- OPERATION is add_widget, associate_widgets, remove_widget or mix (40 % adds, 40 % associations,
-- 10 % removals of associations, 10 % removals of widgets). Needs one thread (-t1), so that one
-- counter serves all connections. Counts and reports refusals.
local formats = {
  add_widget = '{"widget_sn":"A%09d","widget_name":"a widget of the bench","slots":["P","R"]}',
  remove_widget = '{"widget_sn":"W%09d"}',
  associate_widgets = '{"widget1_sn":"W%09d","widget2_sn":"W%09d","port":"Q"}',
  remove_association = '{"widget1_sn":"W%09d","widget2_sn":"W%09d","port":"Q"}',
}
-- A permutation of the widgets, as in pgbench/*.sql: each widget once, far from the previous one.
local prime = 7368787
local mix = { "add_widget", "associate_widgets", "add_widget", "associate_widgets", "remove_association",
  "add_widget", "associate_widgets", "add_widget", "associate_widgets", "remove_widget" }

local operation, start, widgets, removed, n
function init(args)
  operation, start = args[1], tonumber(args[2])
  widgets, removed = tonumber(args[3]), tonumber(args[4])
  n = 0
  wrk.headers["Content-Type"] = "application/json"
end
local function body(name, i)
  if name == "add_widget" then
    return formats[name]:format(i)
  elseif name == "remove_widget" then
    return formats[name]:format(i * prime % widgets)
  end
  return formats[name]:format(2 * i * prime % widgets, (2 * i + 1) * prime % widgets)
end
function request()
  n = n + 1
  if operation ~= "mix" then
    return wrk.format("POST", "/rpc/" .. operation, nil, body(operation, start + n))
  end
  local name = mix[n % 10 + 1]
  local i = start + n
  if name == "remove_association" then
    if n <= 1001 then
      name = "add_widget"
    else
      -- Removes the association of 1,001 requests ago. With 256 connections, that request has long been answered.
      i = i - 1001
    end
  elseif name == "remove_widget" then
    i = removed + n
  end
  return wrk.format("POST", "/rpc/" .. name, nil, body(name, i))
end
function done(summary, latency)
  io.write(string.format("%.0f/s p50=%.2fms p99=%.2fms max=%.1fms refused=%d of %d errors=%d\n",
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, summary.errors.status, summary.requests,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
