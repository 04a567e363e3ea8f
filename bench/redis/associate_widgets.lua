-- KEYS: the two serial numbers. ARGV[1]: the port.
local free = {}
for one = 1, 2 do
    local widget = redis.call('HMGET', KEYS[one], 'name',
        'port1', 'peer1', 'port2', 'peer2', 'port3', 'peer3')
    if not widget[1] then
        return {err = 'WG001'}
    end
    for slot = 3, 1, -1 do
        if widget[2 * slot] == ARGV[1] then
            local peer = widget[2 * slot + 1]
            if peer == '' then
                free[one] = slot
            elseif peer == KEYS[3 - one] then
                return {err = 'WG003'}
            end
        end
    end
end
if not (free[1] and free[2]) then
    return {err = 'WG002'}
end
redis.call('HSET', KEYS[1], 'peer' .. free[1], KEYS[2])
redis.call('HSET', KEYS[2], 'peer' .. free[2], KEYS[1])
return 1
