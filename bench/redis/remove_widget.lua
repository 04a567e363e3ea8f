-- KEYS[1]: the serial number.
local widget = redis.call('HMGET', KEYS[1], 'name',
    'port1', 'peer1', 'port2', 'peer2', 'port3', 'peer3')
if not widget[1] then
    return {err = 'WG001'}
end
for slot = 1, 3 do
    local port, peer = widget[2 * slot], widget[2 * slot + 1]
    if peer and peer ~= '' then
        local there = redis.call('HMGET', peer, 'port1', 'peer1', 'port2', 'peer2', 'port3', 'peer3')
        for other = 1, 3 do
            if there[2 * other - 1] == port and there[2 * other] == KEYS[1] then
                redis.call('HSET', peer, 'peer' .. other, '')
            end
        end
    end
end
redis.call('DEL', KEYS[1])
return 1
