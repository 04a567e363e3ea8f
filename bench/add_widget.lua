-- Every request adds a widget of its own: thread, run and counter make its serial number.
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end
function init(args)
  prefix = (args[1] or "w") .. "-" .. id .. "-"
  counter = 0
  wrk.headers["Content-Type"] = "application/json"
end
function request()
  counter = counter + 1
  local body = '{"widget_sn":"' .. prefix .. counter .. '","widget_name":"a widget of the bench","slots":["P","R"]}'
  return wrk.format("POST", "/rpc/add_widget", nil, body)
end
function done(summary, latency, requests)
  io.write(string.format("%.0f/s p50=%.2fms p99=%.2fms p99.9=%.2fms max=%.1fms errors=%d\n",
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3, latency.max / 1e3,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
