-- Says of each job whether it is missing: neither waiting nor with a worker. One that says that it is scheduled, waits
-- for a place or has begun is looked for where it then must be; the queues are lists, in which nothing can be looked up.
-- ARGV: for each job: queue name, job id
-- Returns 1 or 0 for each.

local function is_there(name, id)
    local status, key, execution = unpack(
        redis.call('HMGET', 'rq:job:' .. id, 'status', 'rate_limit_key', 'execution'))
    if status == 'scheduled' then return redis.call('ZSCORE', 'rq:scheduled:' .. name, id) end
    if status == 'rate_limited' then return redis.call('ZSCORE', waiting_of(key or ''), id) end
    -- RQ's own workers do not say under which entry they hold it.
    if status == 'started' and execution then return redis.call('ZSCORE', 'rq:wip:' .. name, id .. ':' .. execution) end
    return status == 'queued' or status == 'started'
end

local missing = {}
for i = 1, #ARGV, 2 do missing[#missing + 1] = is_there(ARGV[i], ARGV[i + 1]) and 0 or 1 end
return missing
