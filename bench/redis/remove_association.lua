-- KEYS: the two serial numbers. ARGV[1]: the port.
local joined = {}
for one = 1, 2 do
    local widget = redis.call('HMGET', KEYS[one], 'name',
        'port1', 'peer1', 'port2', 'peer2', 'port3', 'peer3')
    if not widget[1] then
        return {err = 'WG001'}
    end
    for slot = 1, 3 do
        if widget[2 * slot] == ARGV[1] and widget[2 * slot + 1] == KEYS[3 - one] then
            joined[one] = slot
        end
    end
end
if not (joined[1] and joined[2]) then
    return {err = 'WG004'}
end
redis.call('HSET', KEYS[1], 'peer' .. joined[1], '')
redis.call('HSET', KEYS[2], 'peer' .. joined[2], '')
return 1
