-- KEYS[1]: the serial number. ARGV: the name, then the ports.
if redis.call('EXISTS', KEYS[1]) == 1 then
    return {err = '23505'}
end
local fields = {'name', ARGV[1]}
for slot = 1, #ARGV - 1 do
    fields[#fields + 1] = 'port' .. slot
    fields[#fields + 1] = ARGV[slot + 1]
    fields[#fields + 1] = 'peer' .. slot
    fields[#fields + 1] = ''
end
redis.call('HSET', KEYS[1], unpack(fields))
return 1
