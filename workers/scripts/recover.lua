-- Puts jobs whose lease has ended back at the front of their queues; their places stay theirs.
-- ARGV: now, queue names...
-- Returns how many.

local recovered = 0
for i = 2, #ARGV do
    local started = 'rq:wip:' .. ARGV[i]
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', started, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 1000)) do
        redis.call('ZREM', started, member)
        local id = string.match(member, '^(.*):')
        if id and redis.call('HGET', 'rq:job:' .. id, 'status') == 'started' then
            redis.call('HSET', 'rq:job:' .. id, 'status', 'queued', 'begun_before', 1)
            redis.call('LPUSH', 'rq:queue:' .. ARGV[i], id)
            recovered = recovered + 1
        end
    end
end
return recovered
