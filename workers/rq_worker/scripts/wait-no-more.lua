-- Has what waits for a time that was told by a clock since set back wait no more. To do it twice is to do it once.
-- ARGV: now, end of the lease, queue names...

local now, lease = ARGV[1], ARGV[2]
for i = 3, #ARGV do
    local scheduled, started = 'rq:scheduled:' .. ARGV[i], 'rq:wip:' .. ARGV[i]
    redis.call('ZUNIONSTORE', scheduled, 1, scheduled, 'WEIGHTS', 0)
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', started, lease, '+inf')) do
        redis.call('ZADD', started, 'XX', lease, member)
    end
end
for _, key in ipairs(redis.call('ZRANGE', 'datahog:held', 0, -1)) do redis.call('ZADD', 'datahog:held', now, key) end
