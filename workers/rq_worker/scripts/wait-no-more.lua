-- Makes all waiting jobs due and shortens the leases, after the clock was set back. Running it twice changes no more.
-- ARGV: now in seconds, end of a new lease in seconds, queue names...

local now, lease = ARGV[1], ARGV[2]
for i = 3, #ARGV do
    local scheduled, started = 'rq:scheduled:' .. ARGV[i], 'rq:wip:' .. ARGV[i]
    redis.call('ZUNIONSTORE', scheduled, 1, scheduled, 'WEIGHTS', 0)
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', started, lease, '+inf')) do
        redis.call('ZADD', started, 'XX', lease, member)
    end
    for _, member in ipairs(redis.call('ZRANGE', started, 0, -1)) do
        local job = 'rq:job:' .. (string.match(member, '^(.*):') or '')
        -- A job that was put while it ran: it is due again once it has completed.
        if redis.pcall('HEXISTS', job, 'again') == 1 then redis.call('HSET', job, 'again', now) end
    end
end
for _, key in ipairs(redis.call('ZRANGE', 'datahog:held', 0, -1)) do redis.call('ZADD', 'datahog:held', now, key) end
