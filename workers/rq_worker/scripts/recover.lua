-- Puts jobs whose lease is over back at the front of their queues. A job that has released its permit waits for one.
-- ARGV: now in seconds, queue names...
-- Returns how many jobs it put back.

local recovered = 0
for i = 2, #ARGV do
    local name = ARGV[i]
    local started = 'rq:wip:' .. name
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', started, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 1000)) do
        redis.call('ZREM', started, member)
        local id, execution = string.match(member, '^(.*):(.*)$')
        local status, own, key = unpack(id and read(id, 'status', 'execution', 'rate_limit_key') or {})
        if status == 'started' and (not own or own == execution) then
            redis.call('HSET', 'rq:job:' .. id, 'begun_before', 1)
            redis.call('HDEL', 'rq:job:' .. id, 'again', 'execution')
            if key and not redis.call('ZSCORE', allowed_of(key), id) then
                admit(id, name, key, 0)
            else
                queue_first(id, name)
            end
            recovered = recovered + 1
        end
    end
end
return recovered
