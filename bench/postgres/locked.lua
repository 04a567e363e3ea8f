-- The requests of wrk in locked.sh: additions of new widgets, named by FIRST and a number, or removals of the
-- widgets held1 to heldHELD, which another transaction has locked.
--   wrk … -- free FIRST
--   wrk … -- held HELD
local kind, given, number = 'free', 'f', 0

function init(args)
  kind, given = args[1], args[2]
  math.randomseed(7)
end

function request()
  number = number + 1
  if kind == 'free' then
    local body = string.format('{"widget_sn":"%s%d","widget_name":"","slots":["P"]}', given, number)
    return wrk.format('POST', '/rpc/add_widget', { ['Content-Type'] = 'application/json' }, body)
  end
  local body = string.format('{"widget_sn":"held%d"}', math.random(tonumber(given)))
  return wrk.format('POST', '/rpc/remove_widget', { ['Content-Type'] = 'application/json' }, body)
end

function done(summary, latency, _)
  io.write(string.format('%.0f/s, %d refused; p50=%.1fms p99=%.1fms max=%.1fms\n',
    summary.requests * 1e6 / summary.duration, summary.errors.status,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
