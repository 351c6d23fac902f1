-- Forgets jobs that nobody has begun; what is left of them on a queue is passed over.
-- ARGV: job ids...

for _, id in ipairs(ARGV) do
    local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'origin', 'rate_limit_key')
    if job[1] and job[1] ~= 'started' then
        redis.call('DEL', 'rq:job:' .. id)
        redis.call('ZREM', 'rq:scheduled:' .. job[2], id)
        if job[3] then
            redis.call('ZREM', waiting_of(job[3]), id)
            release(job[3], id)
        end
    end
end
