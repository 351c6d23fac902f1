-- Puts jobs, due now or later.
-- ARGV: now, now as RQ writes it, timeout, JSON of {key: [concurrency, fields of `datahog:policy:<key>`]},
-- then for each job: queue name, job id, data, time it is due or "" for now, key or ""

local now, text, timeout = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local limits = cjson.decode(ARGV[4])
for key, limit in pairs(limits) do
    redis.call('SADD', 'rq:rl-keys', key)
    redis.call('HSET', 'rq:rl:' .. key, 'concurrency', limit[1])
    for name, value in pairs(limit[2]) do redis.call('HSET', 'datahog:policy:' .. key, name, value) end
end
for i = 5, #ARGV, 5 do
    local name, id, data, due, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    redis.call('SADD', 'rq:queues', 'rq:queue:' .. name)
    redis.call('HSET', 'rq:job:' .. id, 'created_at', text, 'enqueued_at', text, 'data', data, 'origin', name,
        'description', id, 'timeout', timeout, 'result_ttl', 0, 'status', 'scheduled')
    if key == '' then key = nil else
        redis.call('HSET', 'rq:job:' .. id, 'rate_limit_key', key, 'rate_limit_concurrency', limits[key][1])
    end
    if due == '' then admit(id, name, key, now + i / 1e6) else redis.call('ZADD', 'rq:scheduled:' .. name, due, id) end
end
